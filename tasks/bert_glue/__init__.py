"""GLUE with BERT encoders: tickets at pre-trained weights."""
