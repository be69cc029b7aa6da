"""launch/slurm.sh and ssh.sh, and what runs on the hosts (setup_host.sh), against stub executables."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from held import PATIENCE, until
from launch_stubs import FLAGS, LAUNCH, PMC, STUB, WELL, answer, call, ctrl_c_ends_it, far_end, words_of


def test_ssh_hands_over_every_word_and_says_who_is_who(launch, world):
    remote = answer("ssh*pmc-jax\\ unlearn*", 'cd "$HOME" && bash -c "${@: -1}"')
    expected = [[*PMC, "--coordinator=gpu1:8476", "--num_processes=2", f"--process_id={i}"] for i in (0, 1)]
    assert far_end(launch, world[0], remote, "ssh") == expected


def test_slurm_hands_over_every_word_to_a_process_with_all_gpus(launch, world):
    job = answer("sbatch*", 'for w; do case $w in --wrap=*) sh -c "${w#*=}" ;; esac; done')
    step = answer("srun*", 'while [[ $1 == --* ]]; do shift; done; "$@"; echo "$2"')
    said = launch(
        "slurm", *words_of(world[0], "slurm"), "--sbatch=--comment=two words", "--", *PMC, behaviour=f"{job}\n{step}"
    )
    assert [call[1:] for call in said.calls if call[0] == "pmc-jax"] == [PMC], said
    assert "JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7" in said.out
    submitted = said.calls[0]
    assert {
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=8",
        "--comment=two words",
        "--requeue",
        "--dependency=singleton",
    } <= set(submitted)


def test_slurm_that_refuses_the_job(launch, world):
    said = launch("slurm", *words_of(world[0], "slurm"), "--", *PMC, behaviour=answer("sbatch*", "exit 3"))
    assert said.code == 3 and "scancel" not in said.err, said


def test_ssh_installs_everywhere_before_it_starts_anything(launch):
    said = launch("ssh", *FLAGS["ssh"], "--", *PMC)
    assert said.code == 0, said
    last = [call[-1] for call in said.calls if call[0] == "ssh"]
    assert ["setup_host.sh --extra=cuda" in c for c in last] == [True, True, False, False, False]
    assert [call[-1] for call in said.calls if call[0] == "scp"][:2] == ["ada@gpu1:pmc_jax.tgz", "gpu2:pmc_jax.tgz"]
    assert said.calls[-1][0] == "tar" and (said.calls[-2][:2] == ["scp", "-q"])


@pytest.mark.parametrize("host", ["ada@gpu1", "gpu2"])
def test_ssh_a_host_that_fails_is_named(launch, host):
    said = launch("ssh", *FLAGS["ssh"], "--", *PMC, behaviour=answer(f"ssh*{host}\\ *pmc-jax\\ unlearn*", "exit 5"))
    assert said.code == 5 and f"{host} ended with status 5" in said.err and "goes on" in said.err, said
    assert not any("results.tar" in " ".join(call) for call in said.calls)
    said = launch("ssh", *FLAGS["ssh"], "--", *PMC, behaviour=answer(f"scp*{host}:*", "exit 5"))
    assert said.code == 5 and not any("--process_id" in call[-1] for call in said.calls), said


def test_ssh_stopped_ends_the_processes_on_all_hosts(world):
    folder, env = world
    wait = 'trap "kill \\$!; echo . >>$HOME/ended; exit" TERM; /bin/sleep 600 & echo . >>"$HOME/started"; wait'
    env = env | dict(BEHAVIOUR=answer("ssh*process_id*", wait) + "\n" + WELL)
    script = subprocess.Popen(
        [LAUNCH / "ssh.sh", *FLAGS["ssh"], "--", *PMC],
        env=env,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=ctrl_c_ends_it,
    )
    count = lambda name: (folder / name).read_text().count(".") if (folder / name).exists() else 0  # noqa: E731
    until(lambda: count("started") == 2, [script])
    script.send_signal(signal.SIGINT)
    assert script.wait(timeout=PATIENCE) == 130
    until(lambda: count("ended") == 2)


@pytest.fixture
def host(world):
    """host(*flags) -> Said: setup_host.sh in a copied checkout, on a machine where nothing is installed yet."""
    folder, env = world
    (folder / "pmc_jax" / "launch").mkdir(parents=True)
    shutil.copy(LAUNCH / "setup_host.sh", folder / "pmc_jax" / "launch")
    for tool in ("uv", "sudo", "curl", "gcsfuse", "mountpoint", "lsb_release"):
        (folder / "tools" / tool).write_text(STUB)
        (folder / "tools" / tool).chmod(0o755)
    nothing_mounted = answer("mountpoint*", "exit 1") + "\n" + answer("sudo*tee*", "cat >/dev/null")

    def run(*flags, behaviour=nothing_mounted):
        Path(env["RECORD"]).unlink(missing_ok=True)
        command = ["bash", "pmc_jax/launch/setup_host.sh", *flags]
        return call(command, env | dict(BEHAVIOUR=behaviour), folder)

    return run


def test_host_gets_a_python_the_package_and_the_bucket(host):
    said = host("--extra=tpu", "--bucket=my-bucket")
    assert said.code == 0, said
    install = said.calls[said.named("uv", "install")[0]]
    assert install[-2:] == ["--editable", ".[tpu]"] and said.named("uv", "venv")
    assert said.calls[-1][0] == "gcsfuse" and said.calls[-1][-2:] == ["my-bucket", "/data"]
    assert {"--metadata-cache-ttl-secs=0", "--metadata-cache-negative-ttl-secs=0"} <= set(said.calls[-1])


def test_host_without_gcsfuse_installs_it(host, world):
    (world[0] / "tools" / "gcsfuse").unlink()
    said = host("--extra=tpu", "--bucket=my-bucket")
    assert said.named("sudo", "apt-get", "install", "gcsfuse") and said.code == 127, (
        said
    )  # apt-get is a stub: it brought none


def test_host_mounts_nfs(host):
    said = host("--extra=cuda", "--nfs=10.0.0.2:/share")
    assert said.code == 0 and said.calls[-1] == [
        "sudo",
        "mount",
        "-t",
        "nfs",
        "-o",
        "lookupcache=positive",
        "10.0.0.2:/share",
        "/data",
    ], said


def test_host_that_is_ready_is_left_as_it_is(host):
    said = host("--extra=tpu", "--bucket=my-bucket", behaviour="")
    assert said.code == 0 and not said.named("gcsfuse") and not said.named("sudo"), said


def test_host_keeps_the_token_where_only_the_user_reads_it(host, world):
    (world[0] / "hf_token").write_text("hf_secret")
    assert host("--extra=tpu").code == 0
    token = world[0] / ".cache" / "huggingface" / "token"
    assert (
        token.read_text() == "hf_secret"
        and token.stat().st_mode & 0o777 == 0o600
        and not (world[0] / "hf_token").exists()
    )
