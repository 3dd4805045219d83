"""Small judges trained here, and how far any judge agrees with labelled data."""
