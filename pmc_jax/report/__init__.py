"""report.html: what a run did, or several runs side by side, as one self-contained page."""
