"""From any published checkpoint format to the parameters of the model."""
