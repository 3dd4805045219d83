"""The likelihood judge: what the aligned model itself finds likely, with no judge model."""
