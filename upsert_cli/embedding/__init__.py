"""Text becomes vectors: `embedder.load_model` returns an `Embedder`; models, and where their files come from."""
