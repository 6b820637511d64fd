"""What a person sees in the terminal: `live` shows one job, `tables` has tables of answers, `text` is what both are
made of."""
