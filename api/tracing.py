"""Traces for OpenTelemetry: a span for each request, and in it one for each statement. Takes the extra `tracing`.

What else OpenTelemetry can be told (headers for the collector, how many requests are traced, attributes of the service)
it reads from its own variables, `OTEL_…`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv.attributes.db_attributes import DB_QUERY_TEXT, DB_SYSTEM_NAME
from opentelemetry.trace import Span, SpanKind, StatusCode
from structlog.contextvars import bind_contextvars

from service.store.engine import Store

# A stream lasts as long as its job; probes and scrapes come every few seconds.
NOT_TRACED = "/events$,/healthz$,/readyz$,/metrics$"


@contextmanager
def traced(app: FastAPI, store: Store, endpoint: str) -> Iterator[None]:
    """Send traces of the application's requests to the collector at `endpoint`, by OTLP over HTTP, until the block
    ends; then the last of them. A collector that is away costs a request nothing: its traces are lost."""
    provider = TracerProvider(resource=Resource.create({"service.name": "forerun"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        server_request_hook=_bind_to_log,
        excluded_urls=NOT_TRACED,
        exclude_spans=["receive", "send"],
    )
    tracer, system = provider.get_tracer("forerun"), store.url.get_backend_name()

    def begin(statement: str) -> Span:
        attributes = {DB_SYSTEM_NAME: system, DB_QUERY_TEXT: statement}
        return tracer.start_span(statement.split(maxsplit=1)[0], kind=SpanKind.CLIENT, attributes=attributes)

    try:
        with store.watched(begin, _end):
            yield
    finally:
        FastAPIInstrumentor.uninstrument_app(app)
        provider.shutdown()


def _end(span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_status(StatusCode.ERROR, type(error).__name__)
    span.end()


def _bind_to_log(span: Span, scope: dict[str, Any]) -> None:
    """Have what is logged for this request tell of its trace."""
    if span.is_recording():
        bind_contextvars(trace_id=format(span.get_span_context().trace_id, "032x"))
