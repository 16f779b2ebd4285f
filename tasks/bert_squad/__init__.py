"""SQuAD v1.1 with BERT encoders: tickets at pre-trained weights."""
