"""Base models: name -> weights, tokenizer, layers."""
