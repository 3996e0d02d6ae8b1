"""From embeddings to clinical answers: fine-tuning, locked models, what a model does not know, what it looks at."""
