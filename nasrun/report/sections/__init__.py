"""The sections of a report: what a run directory says, as blocks of a document."""
