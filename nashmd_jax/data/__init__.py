"""Records, builders, tokenizer, simulated raters and padded batches."""
