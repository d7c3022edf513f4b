"""Networks of other people's checkpoints, written from their published descriptions: tensors have
the names and shapes of the files, and nothing of their code is needed."""
