"""Settings of a whole run: saved rounds, the mesh, the method, the seed."""

from pmc_jax.settings.setting import AT_LEAST_0, AT_LEAST_1, Setting

RUN = (
    Setting("rounds.keep", 2, "saved rounds kept on disk, beside the one that the run may go back to", *AT_LEAST_1),
    Setting(
        "rounds.every",
        -1,
        "rounds from one that is saved to the next; a stopped run goes on from the last saved one; -1 = each round of "
        "at most 1 GiB, larger ones by rounds.minutes alone",
        "-1, or 1 or more",
        lambda v: v == -1 or v >= 1,
    ),
    Setting(
        "rounds.minutes",
        10.0,
        "a round is also saved when so many minutes have passed since the last saved one; 0 = never for that",
        *AT_LEAST_0,
    ),
    Setting(
        "guard.min_utility",
        0.0,
        "unlearn: where utility falls below, at an evaluation during the run, the run goes back to the last round that "
        "was not below, and ends; needs evaluate.every; 0 = off",
        "0 to 100",
        lambda v: 0 <= v <= 100,
    ),
    Setting("log.samples", True, "write what was sampled into samples/; answers may hold what is to be forgotten"),
    Setting("log.redact", False, "the report shows no answer to a forget question"),
    Setting(
        "mesh.data",
        -1,
        "devices that share the rows; -1 = all that are left",
        "-1, or 1 or more",
        lambda v: v == -1 or v >= 1,
    ),
    Setting("mesh.model", 1, "devices that share each weight", *AT_LEAST_1),
    Setting(
        "method",
        "pmc",
        "unlearning method: pmc, a name of docs/methods.md such as npo, or your own objective as module:attribute",
    ),
    Setting("method_options", "", "hyperparameters of the method, such as beta=0.1,retain_weight=2; empty = its own"),
    Setting("seed", 0, "all randomness: draws, order of questions, retain rows", *AT_LEAST_0),
)
