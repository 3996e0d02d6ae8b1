"""Looking closer: labels that the embeddings contradict, what a model looks at, what more labels would buy."""
