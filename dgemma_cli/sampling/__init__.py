"""Pure functions on the logits of one canvas: schedule, acceptance, stopping."""
