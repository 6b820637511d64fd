"""What a person sees in the terminal: `live` one job, `tables` lists of anything, `text` what both are made of."""
