"""launch/gke.sh against a stub of kubectl: the JobSet that it applies, and how it waits for its end."""

import re
from pathlib import Path

import pytest
import yaml
from launch_stubs import AWKWARD, FLAGS, PMC, answer


def jobset(world):
    return yaml.safe_load(Path(world[1]["RECORD"] + ".yaml").read_text(encoding="utf-8"))


def pod(world):
    return jobset(world)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_gke_hands_over_every_word_and_says_who_is_who(launch, world):
    said = launch("gke", *FLAGS["gke"], "--", *PMC[:2], AWKWARD + "\nnext line", PMC[3])
    assert said.code == 0, said
    args = pod(world)["containers"][0]["args"]
    mine, who = args[:4], args[4:]
    # As Kubernetes reads them: $$ is a $, $(NAME) a variable, which must not be left in what the user wrote.
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", mine[2].replace("$$", ""))
    assert [a.replace("$$", "$") for a in mine] == [*PMC[:2], AWKWARD + "\nnext line", PMC[3]]
    assert who == [
        "--coordinator=forget-hosts-0-0.forget:8476",
        "--num_processes=4",
        "--process_id=$(JOB_COMPLETION_INDEX)",
    ]


@pytest.mark.parametrize("spot", [True, False])
def test_gke_jobset(launch, world, spot):
    said = launch("gke", *FLAGS["gke"], *(["--spot"] if spot else []), "--hf-secret=hf", "--", *PMC)
    assert said.code == 0 and said.named("apply") < said.named("get")[1:], said
    found = jobset(world)
    assert (found["apiVersion"], found["kind"], found["metadata"]["name"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
        "forget",
    )
    assert found["spec"]["network"] == {
        "enableDNSHostnames": True,
        "subdomain": "forget",
        "publishNotReadyAddresses": True,
    }
    job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"], job["backoffLimit"]) == ("Indexed", 4, 4, 0)
    selector = {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    assert pod(world)["nodeSelector"] == selector | ({"cloud.google.com/gke-spot": "true"} if spot else {})
    container = pod(world)["containers"][0]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}} and container["image"] == "r/pmc-jax"
    assert container["env"][1] == {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}
    assert pod(world)["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "my-bucket"
    assert job["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}


def test_gke_restarts_after_a_preemption_without_counting_it(launch, world):
    launch("gke", *FLAGS["gke"], "--max-restarts=5", "--", *PMC)
    policy = jobset(world)["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 5 and policy["restartStrategy"] == "BlockingRecreate"
    assert policy["rules"] == [
        {
            "name": "preempted",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        }
    ]
    job = jobset(world)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["podFailurePolicy"] == {
        "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    }
    assert pod(world)["restartPolicy"] == "Never"  # the only one that goes with a podFailurePolicy


def test_gke_volume_claim(launch, world):
    said = launch(
        "gke", *[f for f in FLAGS["gke"] if "bucket" not in f], "--claim=filestore", "--namespace=ml", "--", *PMC
    )
    assert said.code == 0 and all(call[1] == "--namespace=ml" for call in said.calls if call[0] == "kubectl"), said
    assert pod(world)["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "filestore"}}]


def test_gke_the_same_command_starts_a_failed_run_anew(launch):
    failed = 'grep -qz "^apply$" "$RECORD" && echo Completed || echo Failed; exit'
    said = launch("gke", *FLAGS["gke"], "--", *PMC, behaviour=answer("kubectl*get\\ jobset*", failed))
    assert said.code == 0 and said.named("delete")[0] < said.named("apply")[0], said


def test_gke_failures(launch):
    gone = answer("kubectl*get\\ jobset*", '! grep -qz "^apply$" "$RECORD" || echo Failed; exit')
    said = launch("gke", *FLAGS["gke"], "--", *PMC, behaviour=gone)
    assert said.code == 1 and "failed" in said.err and "kubectl delete jobset forget" in said.err, said
    said = launch("gke", *FLAGS["gke"], "--", *PMC, behaviour=answer("kubectl*apply*", "cat >/dev/null; exit 7"))
    assert said.code == 7 and not said.named("sleep"), said


def test_gke_detached_does_not_wait(launch):
    said = launch("gke", *FLAGS["gke"], "--detach", "--", *PMC)
    assert said.code == 0 and "apply" in said.calls[-1] and "kubectl logs" in said.err, said
