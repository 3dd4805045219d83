"""How a run behaves off its own data: foreign prompts, disguised requests, prompts that need several axes."""
