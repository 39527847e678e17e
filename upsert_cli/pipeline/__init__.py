"""The stages of a load: read batches, compare, embed, write."""
