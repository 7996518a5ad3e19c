"""NVMe over Fibre Channel is refused. Independent side: the types that Debian's own nvme-fc.ko and nvmet-fc.ko bring,
and lpfc.ko, which imports from them and loads without them."""

from __future__ import annotations

import errno

from vmklinux.linux import Linux
from vmklinux.loader import Loader
from vmklinux.stand_in import STAND_INS


def test_lpfc_comes_without_nvme(linux: Linux) -> None:
    loader = Loader(linux)
    lpfc = loader.load("lpfc")
    assert {"nvme_fc", "nvmet_fc", "scsi_mod"} <= set(lpfc.file.info.depends)
    assert not {name for name in loader.modules if name in STAND_INS or name.startswith("nvme")}
    for refuse in ("nvme_fc_register_localport", "nvmet_fc_register_targetport"):
        assert linux.call_int(linux.entry(refuse), 0, 0, 0, 0) == -errno.EOPNOTSUPP
    assert linux.call_int(linux.entry("nvme_fc_register_remoteport"), 0, 0, 0) == -errno.EOPNOTSUPP
    for name in list(loader.modules)[::-1]:
        assert loader.unload(name) == []
