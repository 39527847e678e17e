"""The same stages on more than one machine: units are handed out to workers, and their receipts come back."""
