"""Masked language modelling with BERT encoders: tickets at pre-trained weights."""
