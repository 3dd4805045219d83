"""The dial swept: what each axis gains and costs, and where fixed mixtures lie beside it."""
