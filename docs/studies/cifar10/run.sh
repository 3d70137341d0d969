#!/bin/sh
# sh docs/studies/cifar10/run.sh IMAGES [OUT]
#
# The whole study, from CIFAR-10 as a folder or an archive of images (train/CLASS/*, test/CLASS/*) to the report, in the
# folder OUT (runs/cifar10_study). Stopped at any moment and started again, it goes on with what is missing.
set -eu
files=$(cd "$(dirname "$0")" && pwd)
images=$(realpath "$1")
out=${2:-runs/cifar10_study}
export OMP_NUM_THREADS=1 # two runs at a time, a core each
mkdir -p "$out"
cd "$out"

arvis-scale shards build "$images" shards

# The teachers of D-iGPT, all trained on all 50,000 training images: a small CLIP, which has seen the labels as class
# names; a masked autoencoder and a VQ tokenizer, which have not.
size="--image-size 32 --patch-size 4"
test -e weights/clip || arvis-scale weights train-clip shards weights/clip $size --samples-seen 100000
test -e weights/vq || arvis-scale weights train-vq shards weights/vq $size --num-codes 256 --samples-seen 50000
if ! test -e weights/mae; then
    arvis-scale train "$files/base.yaml" objective=mae preset=micro name=mae output=teacher data.shards=shards \
        data.subset.kind=uniform samples_seen=100000 optimizer.learning_rate=3e-3
    arvis-scale weights export teacher weights/mae
fi

arvis-scale sweep submit "$files/tune.yaml" --output tune data.shards=shards
arvis-scale study collect tune
arvis-scale sweep submit "$files/study.yaml" --output study data.shards=shards probe_data.shards=shards

# The attentive probe takes longer than the runs: at the largest size, most images and longest runs of one seed only.
for run in study/runs/*-micro-u2048-n8192-s0; do
    case $run in *-longtail-*) continue ;; esac
    grep -q '"attentive"' "$run/result.json" || arvis-scale probe "$run" --kind attentive
done

# One part for each question, fitted, drawn and reported by itself; m1, since three sizes and lengths bear no more.
part() {
    name=$1
    shift
    methods=$(printf -- ' --method %s' "$@")
    # shellcheck disable=SC2086
    arvis-scale study collect study $methods --output "parts/$name"
    arvis-scale study fit "parts/$name" --law m1
    arvis-scale study plot "parts/$name"
    arvis-scale study report "parts/$name"
}
arvis-scale study collect study
part blocks XTRA-k1 XTRA-k2 XTRA-k4 AIM
part tokens D-iGPT-CLIP D-iGPT-CLIP-1dec D-iGPT-MAE D-iGPT-VQ D-iGPT-pixels
part rivals XTRA-k2 D-iGPT-CLIP AIM iGPT MAE
part longtail XTRA-k2 XTRA-k2-longtail AIM AIM-longtail MAE MAE-longtail

python "$files/tables.py" study/points.csv
