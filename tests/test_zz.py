import pmc_jax, numpy as np
from pmc_jax import generate, sampler
from pmc_jax.draw import GREEDY, Warp


def test_x(tiny_checkpoint, splits, small, forget_questions):
    c = small()
    g = generate.make_generator(tiny_checkpoint, c, Warp(1.3, 50, 0.95), 4, capacity=8)
    p = sampler.left_pad([g.text.prompt(q) for q in forget_questions], forget_questions)
    t = [s[0] for s in g._replace(warp=GREEDY, num_samples=1, capacity=None).tokens(p)]
    refs = [g.text.read(x) for x in t]
    s = [a[0] for a in pmc_jax.sample(tiny_checkpoint, forget_questions, temperature=0.0, max_new_tokens=64)]
    for a, b, x in zip(refs, s, t):
        print(len(x), a == b)
        if a != b:
            print(a)
            print(b)
    assert 0
