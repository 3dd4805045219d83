"""Numbers about numbers: intervals, calibration, win rates and preferences; no model and no run is needed here."""
