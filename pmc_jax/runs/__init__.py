"""What each verb of the command line does in a workdir."""
