"""What the hub's clients raise -> one line that says what to do."""

from pmc_jax.errors import first_line

LOGIN = "accept its terms on its page, then set HF_TOKEN or run `hf auth login`"
OFFLINE = "without a network, download it elsewhere and give the folder"
# Names of exceptions (their parents' too), or words of the message -> the remedy. The first that fits is taken.
REMEDIES = (
    (("GatedRepoError", "gated"), LOGIN),
    (
        ("RepositoryNotFoundError", "DatasetNotFoundError", "401", "404"),
        "check the name; if it is private, set HF_TOKEN",
    ),
    (("403",), LOGIN),
    (("LocalTokenNotFoundError",), "set HF_TOKEN or run `hf auth login`"),
    (("OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError", "OSError"), OFFLINE),
)


def hub_problem(error: Exception) -> str:
    """The first line of what a client of the hub raised, and the remedy."""
    said = first_line(error)[:110]
    words = [kind.__name__ for kind in type(error).__mro__] + [said]
    remedy = next((r for signs, r in REMEDIES if any(s in word for s in signs for word in words)), OFFLINE)
    return f"{said}; {remedy}"
