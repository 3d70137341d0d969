"""What a failure is called: for want of memory, the user's to mend, or neither."""

import errno

import pytest

from arvis_scale.engine.exit_status import (
    BAD_INPUT,
    FAILED,
    OUT_OF_MEMORY,
    STOPPED_BY_GUARD,
    GuardError,
    exit_status_of,
)


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OUT_OF_MEMORY),
        (MemoryError(), OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OUT_OF_MEMORY),
        (FileNotFoundError(errno.ENOENT, "No such file"), BAD_INPUT),
        (OSError(errno.ENOSPC, "No space left on device"), BAD_INPUT),
        (ValueError("samples_seen must not be negative"), BAD_INPUT),
        (OSError(errno.EIO, "Input/output error"), FAILED),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), FAILED),
        (RuntimeError("NCCL error"), FAILED),
        (GuardError("loss spike"), STOPPED_BY_GUARD),
    ],
    ids=str,
)
def test_status_of_a_failure(error, expected):
    assert exit_status_of(error) == expected


def test_torchs_own_errors_are_recognized():
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as too_much:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert exit_status_of(too_much.value) == OUT_OF_MEMORY
    assert exit_status_of(torch.cuda.OutOfMemoryError("CUDA out of memory")) == OUT_OF_MEMORY
