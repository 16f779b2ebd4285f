"""What tasks on BERT encoders share: the encoder and what may be pruned of it, tokens, batches, the recipe. No task itself."""
