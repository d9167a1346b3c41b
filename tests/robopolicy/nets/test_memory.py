"""Memories: SEGA against its equations written out, and what holds for all of them."""

import pytest
import torch
from tiny import normal

from robopolicy.nets.memory import make_memory
from robopolicy.nets.sega import Attention, Sega
from robopolicy.train import seeded_init

B, T, E, W, S, LAYERS, HEADS = 5, 2, 7, 16, 3, 2, 4
KINDS = ("sega", "lstm", "stacked")


@pytest.fixture(params=KINDS)
def memory(request):
    with seeded_init(0):
        return make_memory(request.param, E, T, W, S, LAYERS, True)


def sega(**settings):
    with seeded_init(0):
        made = Sega(E, T, W, S, LAYERS, HEADS, **settings)
        for p in made.parameters():  # so that no term of the equations vanishes
            torch.nn.init.normal_(p, std=0.3)
    return made


def flags(*fresh):
    return torch.tensor(fresh, dtype=torch.bool)


def explicit_logits(attention, query, memory):
    """(B, H, N, M) scaled dot products before the softmax, one by one."""
    d = W // HEADS
    q, (k, v) = attention.query(query), attention.key_value(memory).split(W, -1)
    logits = torch.zeros(len(q), HEADS, q.shape[1], k.shape[1])
    for h in range(HEADS):
        part = slice(h * d, (h + 1) * d)
        logits[:, h] = q[..., part] @ k[..., part].transpose(1, 2) / d**0.5
    return logits, v


def explicit(module, obs, memory, fresh):
    """Equations 8 to 11, block by block, with every matrix of logits."""

    def attend(attention, query, other):
        logits, v = explicit_logits(attention, query, other)
        heads = [
            w @ v[..., h * W // HEADS : (h + 1) * W // HEADS]
            for h, w in enumerate(logits.softmax(-1).unbind(1))
        ]
        return attention.out(torch.cat(heads, -1)), logits

    def block(b, q, m):
        own, look, there, last = b.norms
        q = q + attend(b.own, own(q), own(q))[0]
        found, logits = attend(b.cross, look(q), there(m))
        q = q + found
        return q + b.mlp(last(q)), logits

    start = torch.where(fresh[:, None, None], module.start, memory)
    xs, ys, logits = [start + module.position], [module.token(obs)], []
    for layer in range(LAYERS):
        x, raw = block(module.write[layer], xs[-1], ys[-1])
        y, _ = block(module.read[layer], ys[-1], xs[-1])
        xs.append(x), ys.append(y), logits.append(raw)
    gate = torch.stack(logits).mean((0, 2, 4)).sigmoid()
    gate = torch.where(fresh[:, None], 1.0, gate)[..., None]
    following = gate * module.norm_memory(xs[-1]) + (1 - gate) * xs[0] - module.position
    return module.norm_read(ys[-1]).flatten(1), following, gate[..., 0]


def test_attention_mean_logit_equals_mean_over_all_heads_and_keys():
    with seeded_init(0):
        attention = Attention(W, HEADS)
    query, memory = normal(B, S, W), normal(B, T, W, seed=1)
    wanted = explicit_logits(attention, query, memory)[0].mean((1, 3))
    assert torch.allclose(attention(query, memory)[1], wanted, atol=1e-6)


def test_sega_equals_its_equations_written_out():
    module, fresh = sega(), flags(True, False, False, True, False)
    got = module.look(normal(B, T, E), normal(B, S, W, seed=1), fresh)
    wanted = explicit(module, normal(B, T, E), normal(B, S, W, seed=1), fresh)
    for mine, theirs in zip(got, wanted, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    assert (got[2][fresh] == 1).all()
    assert ((got[2][~fresh] > 0) & (got[2][~fresh] < 1)).all()


@pytest.mark.parametrize(("width", "heads"), [(16, 4), (16, 1), (64, 4)])
def test_sega_untrained_overwrites_an_eighth_whatever_its_size(width, heads):
    with seeded_init(0):
        module = Sega(E, T, width, S, LAYERS, heads)
        for block in module.write:
            torch.nn.init.zeros_(block.cross.query.weight)
            torch.nn.init.zeros_(block.cross.key_value.weight)
    _, _, gate = module.look(normal(B, T, E), normal(B, S, width, seed=1), flags(*[False] * B))
    assert torch.allclose(gate, torch.tensor(-2.0).sigmoid(), atol=1e-6)


def test_sega_untrained_slots_hold_different_things():
    """Slots alike would stay alike: nothing else in the equations tells them apart."""
    with seeded_init(0):
        module = Sega(E, T, 64, 4, LAYERS, HEADS)
    _, held = module(normal(B, T, E), torch.zeros(B, 4, 64), flags(*[True] * B))
    alike = torch.nn.functional.cosine_similarity(held[:, :, None], held[:, None], -1)
    assert (alike - torch.eye(4)).sum() / (B * 4 * 3) < 0.8


def test_sega_without_gate_overwrites_everything():
    module, gated = sega(gated=False), sega()
    start = module.start.expand(B, S, W)
    _, following, gate = module.look(normal(B, T, E), start, flags(*[False] * B))
    assert (gate == 1).all()
    assert torch.equal(following, gated.look(normal(B, T, E), start, flags(*[True] * B))[1])


def test_sega_every_parameter_learns_through_two_calls_and_not_through_one():
    # The public release detaches the memory at every step: its write stream's end never learns.
    for calls, dead in ((2, 0), (1, 1)):
        module = sega()
        memory, fresh = torch.zeros(B, S, W), flags(*[True] * B)
        for call in range(calls):
            read, memory = module(normal(B, T, E, seed=call), memory, fresh & (call == 0))
        read.square().sum().backward()
        silent = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum()]
        assert bool(silent) == bool(dead), silent
        if dead:
            assert any(n.startswith("norm_memory") for n in silent)


def test_memory_fresh_row_forgets_and_others_do_not(memory):
    obs, before = normal(B, T, E), normal(B, *memory.shape, seed=1)
    other = normal(B, *memory.shape, seed=2)
    fresh = flags(True, False, True, False, False)
    a, b = memory(obs, before, fresh), memory(obs, other, fresh)
    for mine, theirs in zip(a, b, strict=True):
        assert torch.equal(mine[fresh], theirs[fresh])
        assert not torch.equal(mine[~fresh], theirs[~fresh])


def test_memory_batch_of_one_equals_row_of_a_batch(memory):
    obs, before, fresh = normal(B, T, E), normal(B, *memory.shape, seed=1), flags(*[False] * B)
    whole = memory(obs, before, fresh)
    for i in range(B):
        one = memory(obs[i : i + 1], before[i : i + 1], fresh[i : i + 1])
        for mine, theirs in zip(one, whole, strict=True):
            assert torch.allclose(mine[0], theirs[i], atol=1e-5)


def test_memory_size_stays_the_same_over_a_thousand_calls(memory):
    before, fresh = torch.zeros(1, *memory.shape), flags(True)
    with torch.no_grad():
        for call in range(1000):
            read, before = memory(normal(1, T, E, seed=call), before, fresh)
            fresh = flags(False)
    assert before.shape == (1, *memory.shape)
    assert read.shape == (1, memory.read_size)
    assert torch.isfinite(before).all()


def test_stacked_memory_holds_the_last_observations_oldest_first():
    memory = make_memory("stacked", E, T, W, S, LAYERS, True)
    seen = [normal(1, T, E, seed=i) for i in range(5)]
    before, fresh = torch.zeros(1, S, E), flags(True)
    for obs in seen:
        read, before = memory(obs, before, fresh)
        fresh = flags(False)
    past = torch.stack([o[:, -1] for o in seen[1:4]], 1)
    assert torch.equal(read, torch.cat([seen[4], past], 1).flatten(1))
