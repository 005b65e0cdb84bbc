"""The reverse Kullback-Leibler divergence of replies: KL(student ‖ teacher) over the vocabulary, token by
token.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainer.estimate.workload import LOSS_CHUNK_TOKENS
from trainer.train.collator import output_head, reply_logits, reply_states


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the divergence of logits [tokens, vocabulary] from the teacher's, in nats, [tokens]."""
    of_student = torch.log_softmax(student, -1, dtype=torch.float32)
    of_teacher = torch.log_softmax(teacher, -1, dtype=torch.float32)
    return functional.kl_div(of_teacher, of_student, reduction="none", log_target=True).sum(-1)


@torch.no_grad()
def teacher_outputs(model: Any, batch: dict[str, Tensor], in_chunks: bool) -> Tensor:
    """Compute what `reply_divergences` compares with: hidden states [trained tokens, width] if it is
    computed in chunks, else logits.
    """
    outputs, _ = (reply_states if in_chunks else reply_logits)(model, batch)
    return outputs


def reply_divergences(
    model: Any, batch: dict[str, Tensor], teacher: Tensor, in_chunks: bool = False
) -> Tensor:
    """Return the divergence at each trained token of a batch, in nats, [trained tokens].

    `teacher` are its outputs for the same tokens. `in_chunks`: a few logits at a time, for models
    with a plain head, which student and teacher share.
    """
    if in_chunks:
        states, _ = reply_states(model, batch)
        head = output_head(model).weight
        # torch gives `apply` no types.
        divergences: Tensor = _ChunkedReverseKL.apply(states, teacher, head)  # type: ignore[no-untyped-call]
        return divergences
    logits, _ = reply_logits(model, batch)
    return reverse_kl(logits, teacher)


class _ChunkedReverseKL(torch.autograd.Function):
    """Computes divergences [n] of hidden states [n, width] and their gradients together, without
    keeping any logits, as the cross-entropy of replies is computed (`trainer.train.collator`).
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, teacher: Tensor, head: Tensor) -> Tensor:
        divergences = torch.empty(len(states), device=states.device)
        gradients = torch.empty_like(states)
        for start in range(0, len(states), LOSS_CHUNK_TOKENS):
            chunk = slice(start, start + LOSS_CHUNK_TOKENS)
            student = torch.log_softmax(states[chunk] @ head.T, -1, dtype=torch.float32)
            difference = torch.log_softmax(teacher[chunk] @ head.T, -1, dtype=torch.float32)
            torch.sub(student, difference, out=difference)
            probabilities = student.exp_()
            divergence = (probabilities * difference).sum(-1)
            divergences[chunk] = divergence
            # The derivative by the student's logits: p · (log p − log q − KL).
            by_logits = difference.sub_(divergence[:, None]).mul_(probabilities)
            gradients[chunk] = by_logits.to(head.dtype) @ head
        ctx.save_for_backward(gradients)
        return divergences

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (gradients,) = ctx.saved_tensors
        return (gradients * upstream[0][:, None]).to(gradients.dtype), None, None
