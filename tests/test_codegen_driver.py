"""The driver's IR: complete for every processor, and calling nobody by name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from treadle.codegen.driver import ENTRIES, driver_ir
from treadle.codegen.pool_record import FIELDS, PLACED, POOL_BYTES

llvm: Any = pytest.importorskip("llvmlite.binding")

TRIPLES = {
    "x86_64": "x86_64-unknown-linux-gnu",
    "aarch64": "aarch64-unknown-linux-gnu",
    "riscv64": "riscv64-unknown-linux-gnu",
}


@pytest.mark.parametrize("machine", TRIPLES)
def test_it_compiles_and_needs_no_other_object(machine: str) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(driver_ir(machine))
    module.verify()
    defined = {f.name for f in module.functions if not f.is_declaration}
    assert set(ENTRIES) <= defined
    features = "+m,+a" if machine == "riscv64" else ""
    target = llvm.Target.from_triple(TRIPLES[machine])
    emitter = target.create_target_machine(opt=2, reloc="pic", features=features)
    assembly = emitter.emit_assembly(module)
    called = re.findall(r"^\s(?:bl|call|callq|jmp|j)\s+([A-Za-z_]\w*)", assembly, re.MULTILINE)
    assert set(called) <= defined
    assert "__atomic" not in assembly
    assert "__aarch64" not in assembly


def test_fields_are_aligned_and_apart() -> None:
    assert all(offset % 4 == 0 for offset in FIELDS.values())
    assert len(set(FIELDS.values())) == len(FIELDS)
    assert max(FIELDS.values()) + 8 <= POOL_BYTES
    assert FIELDS["ids"] + 4 * PLACED <= POOL_BYTES
    # What every thread polls shares no pair of cache lines with what the workers write.
    assert FIELDS["left"] // 128 != FIELDS["done"] // 128
