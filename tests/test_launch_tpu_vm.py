"""launch/tpu_vm.sh against a stub of gcloud: its steps, and that no TPU is left behind."""

import signal

import pytest
from launch_stubs import FLAGS, LAUNCH, PMC, WELL, answer, call, far_end


def test_tpu_vm_hands_over_every_word(launch, world):
    remote = answer(
        "gcloud*tpu-vm\\ ssh*pmc-jax\\ unlearn*",
        'for w; do case $w in --command=*) cd "$HOME" && bash -c "${w#*=}" ;; esac; done',
    )
    assert far_end(launch, world[0], remote, "tpu_vm") == [PMC]


STEPS = {
    "create": "gcloud*queued-resources\\ create*",
    "pack": "tar*-czf*",
    "copy": "gcloud*tpu-vm\\ scp*forget:\\ *",
    "install": "gcloud*tpu-vm\\ ssh*setup_host*",
    "run": "gcloud*tpu-vm\\ ssh*pmc-jax\\ unlearn*",
    "gather": "gcloud*tpu-vm\\ ssh*results.tar*",
    "fetch": "gcloud*tpu-vm\\ scp*results.tar*",
}


def test_tpu_vm_does_its_steps_in_order_on_all_hosts(launch):
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--spot", "--project=my project", "--wait=6h", "--", *PMC)
    assert said.code == 0, said
    steps = [" ".join(call[3:5]) for call in said.calls if call[0] == "gcloud" and not {"describe", "list"} & set(call)]
    inside = ["tpu-vm scp", "tpu-vm ssh", "tpu-vm ssh", "tpu-vm ssh", "tpu-vm scp"]
    assert steps == ["queued-resources create", *inside, "queued-resources delete"], said
    place = {"--zone=us-west4-a", "--project=my project"}
    assert all(place <= set(call) for call in said.calls if call[0] == "gcloud")
    kind = {"--node-id=forget", "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"}
    assert kind | {"--spot", "--valid-until-duration=6h"} <= set(said.calls[said.named("create")[0]])
    ssh = [call for call in said.calls if "ssh" in call]
    assert ["--worker=all" in call for call in ssh] == [True, True, False]
    assert "setup_host.sh --extra=tpu --bucket=my-bucket" in ssh[0][-1]
    assert said.calls[-1][-2:] == ["--force", "--quiet"]


@pytest.mark.parametrize("step", STEPS)
def test_tpu_vm_is_deleted_when_a_step_fails(launch, step):
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=answer(STEPS[step], "exit 9"))
    assert said.code == 9, said
    assert "delete" in said.calls[-1] and "--force" in said.calls[-1], said
    later = list(STEPS)[list(STEPS).index(step) + 1 :]
    assert not any("results.tar" in " ".join(call) for call in said.calls) or "gather" not in later


@pytest.mark.parametrize("step", ["install", "fetch", None])
def test_tpu_vm_that_cannot_be_deleted_says_how(launch, step):
    behaviour = answer("*queued-resources\\ delete*", "exit 1") + "\n" + (answer(STEPS[step], "exit 9") if step else "")
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=behaviour)
    assert said.code == (9 if step else 1), said
    told = said.err.strip().splitlines()[-1]
    assert "BILLED" in told and told.endswith(
        "gcloud compute tpus queued-resources delete forget --zone=us-west4-a --force --quiet"
    )


def test_tpu_vm_deletes_nothing_when_the_cloud_cannot_be_asked(launch):
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=answer("*queued-resources\\ list*", "exit 4"))
    assert said.code == 4 and len(said.calls) == 1, said


def test_tpu_vm_kept_says_how_to_delete_it(launch):
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--keep", "--", *PMC)
    assert said.code == 0 and not said.named("delete") and "queued-resources delete forget" in said.err, said


def test_tpu_vm_waits_until_active(launch):
    count = '$(grep -cz "^describe$" "$RECORD")'
    turns = (
        f"case {count} in 1) echo WAITING_FOR_RESOURCES ;; 2) exit 1 ;; 3) echo PROVISIONING ;; *) echo "
        "ACTIVE ;; esac; exit"
    )
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=answer("*queued-resources\\ describe*", turns))
    assert said.code == 0 and len(said.named("sleep")) == 3 and max(said.named("sleep")) < min(said.named("scp")), said


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_tpu_vm_that_never_came(launch, state):
    said = launch(
        "tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=answer("*queued-resources\\ describe*", f"echo {state}; exit")
    )
    assert said.code == 2 and state in said.err and not said.named("scp") and "delete" in said.calls[-1], said


def test_tpu_vm_after_a_preemption_the_same_command_goes_on(launch):
    words = [*FLAGS["tpu_vm"], "--spot", "--", *PMC]
    taken = answer(STEPS["run"], "exit 255") + "\n" + answer("*tpu-vm\\ describe*", "echo PREEMPTED; exit")
    first = launch("tpu_vm", *words, behaviour=taken)
    assert first.code == 75 and "goes on" in first.err and "delete" in first.calls[-1], first
    # It could also not be deleted in time: what is left of it goes first.
    left = answer("*queued-resources\\ list*", "echo SUSPENDED; exit")
    second = launch("tpu_vm", *words, behaviour=left)
    assert second.code == 0, second
    assert second.named("delete")[0] < second.named("create")[0] < second.named("ssh")[0]
    runs = [
        [c[-1] for c in said.calls if "ssh" in c and "pmc-jax" in c[-1] and "unlearn" in c[-1]]
        for said in (first, second)
    ]
    assert runs[0] == runs[1] and len(runs[0]) == 1


def test_tpu_vm_a_failed_run_is_no_preemption(launch):
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=answer(STEPS["run"], "exit 2"))
    assert said.code == 2 and "failed with status 2" in said.err, said


def test_tpu_vm_that_is_there_already_is_left_alone_unless_told(launch):
    there = answer("*queued-resources\\ list*", "echo ACTIVE; exit")
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--", *PMC, behaviour=there)
    assert (
        said.code == 2
        and len(said.calls) == 1
        and "--reuse" in said.err
        and "queued-resources delete forget" in said.err
    ), said
    said = launch("tpu_vm", *FLAGS["tpu_vm"], "--reuse", "--", *PMC, behaviour=there)
    assert said.code == 0 and not said.named("create") and "delete" in said.calls[-1], said


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_tpu_vm_is_deleted_when_stopped(world, kind):
    folder, env = world
    env = env | dict(BEHAVIOUR=answer(STEPS["run"], f'kill -{kind:d} "$PPID"; exit 1') + "\n" + WELL)
    said = call([LAUNCH / "tpu_vm.sh", *FLAGS["tpu_vm"], "--", *PMC], env, folder)
    assert said.code == 128 + kind and "delete" in said.calls[-1], said


def test_tpu_vm_a_token_is_copied_as_a_file_and_never_shown(launch, tmp_path):
    (tmp_path / "token").write_text("hf_secret")
    said = launch("tpu_vm", *FLAGS["tpu_vm"], f"--hf-token={tmp_path}/token", "--", *PMC)
    assert (
        said.code == 0
        and said.named(f"{tmp_path}/token", "forget:hf_token", "--worker=all")
        and "hf_secret" not in repr(said)
    ), said
