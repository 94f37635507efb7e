"""Pictures in, batches of augmented views out."""
