#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

usage() {
  cat <<'HELP'
Run pmc-jax on a TPU slice of a GKE cluster, as a JobSet that restarts by itself after a preemption. Applies it and
waits for its end.

launch/gke.sh --name=NAME --image=IMAGE --accelerator=KIND --topology=AxB --hosts=N (--bucket=BUCKET | --claim=PVC)
  [...] -- VERB --workdir=/data/... [flags of pmc-jax]

  --name=NAME         of the JobSet
  --image=IMAGE       container with pmc-jax, built from launch/Dockerfile and pushed where the cluster can pull it
  --accelerator=KIND  node label cloud.google.com/gke-tpu-accelerator: tpu-v5-lite-podslice, tpu-v5p-slice,
                      tpu-v6e-slice
  --topology=AxB      node label cloud.google.com/gke-tpu-topology: 2x4, 4x4, 4x4x4
  --hosts=N           hosts (nodes) of the slice: chips of the topology / chips per host
  --chips-per-host=N  default: 4
  --bucket=BUCKET     Cloud Storage bucket, mounted in every pod at /data. Create it with a hierarchical namespace
                      (launch/README.md says why).
  --claim=PVC         instead of a bucket: a ReadWriteMany volume claim (as Filestore), mounted in every pod at /data
  --service-account=NAME  Kubernetes service account that may write to the bucket; default: default
  --hf-secret=NAME    Kubernetes secret whose key `token` is a Hugging Face token, for gated checkpoints; default: none
  --namespace=NAME    default: kubectl's
  --spot              on spot nodes
  --max-restarts=N    restarts after failures that are no preemption; default: 3. Preemptions do not count.
  --detach            do not wait for the end
  --dry-run           print every command, run none
  --help              this text

Example:
  launch/gke.sh --name=forget --image=REGISTRY/pmc-jax --accelerator=tpu-v5-lite-podslice --topology=4x4 --hosts=4 \
    --spot --bucket=my-bucket -- \
    unlearn --config=configs/tofu_llama.py --config.model.path=/data/tofu-full/hf --workdir=/data/tofu-pmc

When a pod goes, all pods are started anew: they go on from the last saved round in /data. The same command again
waits for a JobSet that runs, and starts a failed one anew, which goes on as well.
HELP
}

name='' image='' accelerator='' topology='' hosts='' chips_per_host=4 bucket=''
claim='' service_account=default hf_secret='' namespace='' spot='' max_restarts=3 detach=''
read_flags "$@"
required name image accelerator topology hosts
resource_name "$name"
whole_numbers hosts chips-per-host max-restarts
[[ $bucket || $claim ]] ||
  die "--bucket=NAME or --claim=PVC is missing: the workdir must outlive the pods and be seen by all of them"
[[ ! $bucket || ! $claim ]] || die "--bucket and --claim: both would lie at /data, give one"
read_workdir
[[ $workdir == /data/?* ]] || die "--workdir=$workdir: must lie below /data, the folder that outlives the pods"
[[ $topology =~ ^[0-9]+(x[0-9]+)+$ ]] || die "--topology=$topology: must read as 2x4 or 4x4x4"
chips_of_topology=$((${topology//x/*}))
((chips_of_topology == hosts * chips_per_host)) ||
  die "--topology=$topology has $chips_of_topology chips," \
    "--hosts=$hosts x --chips-per-host=$chips_per_host makes $((hosts * chips_per_host))"
need kubectl "https://kubernetes.io/docs/tasks/tools, then: gcloud container clusters get-credentials CLUSTER"

# A word as a string of JSON, which is one of YAML too.
yaml() {
  local word=$1 backslash=\\ quote=\" newline=$'\n'
  word=${word//"$backslash"/"$backslash$backslash"}
  word=${word//"$quote"/"$backslash$quote"}
  word=${word//"$newline"/"${backslash}n"}
  echo "$quote$word$quote"
}

# Kubernetes replaces $(NAME) in arguments, and reads $$ as $: what the user wrote is meant as it stands.
argument() {
  local word=$1 dollar=\$
  word=${word//"$dollar"/"$dollar$dollar"}
  yaml "$word"
}

# The service that JobSet makes for the pods bears the JobSet's name, pod 0 the name below: no pod needs to ask the
# cluster who is who.
jobset() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  annotations:
    # All pods on one node pool: that is one slice.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  network:
    enableDNSHostnames: true
    subdomain: $name
    publishNotReadyAddresses: true
  failurePolicy:
    maxRestarts: $max_restarts
    # Old pods are gone before new ones start: two generations must not write to one workdir.
    restartStrategy: BlockingRecreate
    rules:
      - name: preempted
        action: RestartJobSetAndIgnoreMaxRestarts
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: hosts
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          completions: $hosts
          parallelism: $hosts
          # One process without its peers is of no use: the first pod that fails ends the job, and JobSet starts all anew.
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onPodConditions:
                  - type: DisruptionTarget
                    status: "True"
          template:
            metadata:
              annotations:
                gke-gcsfuse/volumes: "$([[ $bucket ]] && echo true || echo false)"
            spec:
              restartPolicy: Never
              serviceAccountName: $(yaml "$service_account")
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $(yaml "$accelerator")
                cloud.google.com/gke-tpu-topology: "$topology"${spot:+
                cloud.google.com/gke-spot: \"true\"}
              containers:
                - name: pmc-jax
                  image: $(yaml "$image")
                  args:
$(for word in "${pmc[@]}"; do echo "                    - $(argument "$word")"; done)
                    - --coordinator=$name-hosts-0-0.$name:8476
                    - --num_processes=$hosts
                    - --process_id=\$(JOB_COMPLETION_INDEX)
                  env:
                    - name: PYTHONUNBUFFERED
                      value: "1"${hf_secret:+
                    - name: HF_TOKEN
                      valueFrom:
                        secretKeyRef:
                          name: $(yaml "$hf_secret")
                          key: token}
                  resources:
                    limits:
                      google.com/tpu: $chips_per_host
                  volumeMounts:
                    - name: data
                      mountPath: /data
              volumes:
                - name: data
$(if [[ $bucket ]]; then volume_of_bucket; else volume_of_claim; fi)
YAML
}

# No cached metadata (on TPU machines it would be cached for ever): a pod must see at once what another has just
# written.
volume_of_bucket() {
  cat <<YAML
                  csi:
                    driver: gcsfuse.csi.storage.gke.io
                    volumeAttributes:
                      bucketName: $(yaml "$bucket")
                      mountOptions: implicit-dirs,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0
YAML
}

volume_of_claim() {
  cat <<YAML
                  persistentVolumeClaim:
                    claimName: $(yaml "$claim")
YAML
}

kubectl=(kubectl ${namespace:+--namespace="$namespace"})
get_state=("${kubectl[@]}" get jobset "$name" --ignore-not-found --output 'jsonpath={.status.terminalState}')
delete=("${kubectl[@]}" delete jobset "$name")

if [[ $dry_run ]]; then
  echo "$(quoted "${kubectl[@]}" apply --filename -) <<'YAML'"
  jobset
  echo YAML
  [[ $detach ]] || echo "until [ -n \"\$($(quoted "${get_state[@]}"))\" ]; do sleep 30; done"
  exit
fi

# A failed JobSet stays as it is until it is deleted; the workdir lies elsewhere and stays.
[[ $("${get_state[@]}") != Failed ]] || run "${delete[@]}"
echo "+ $(quoted "${kubectl[@]}" apply --filename -)" >&2
jobset | "${kubectl[@]}" apply --filename -
first_pod=jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0
logs=("${kubectl[@]}" logs --follow --tail=-1 --container=pmc-jax --selector "$first_pod")
note "what it says:  $(quoted "${logs[@]}")"
note "to delete it:  $(quoted "${delete[@]}")"
[[ ! $detach ]] || exit 0
while true; do
  state=$("${get_state[@]}") || state=''
  case $state in
    Completed) note "finished; the results are in $workdir" && break ;;
    Failed)
      note "failed more than $max_restarts times; $workdir holds what is done," \
        "the same command again goes on from there"
      exit 1
      ;;
  esac
  sleep 30
done
