"""What Keytrail says of itself: accounting, logs, health. Importable by everything, imports no stage."""
