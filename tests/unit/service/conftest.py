from hypothesis import HealthCheck, settings

# a busy machine is no failure of the code
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
