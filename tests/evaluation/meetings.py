"""Started by torchrun: processes that meet again and again, one of them late each time."""

from __future__ import annotations

import sys
import time

from stylegan_t.evaluation.sets import Share

if __name__ == "__main__":
    share = Share.of_torchrun()
    for number in range(int(sys.argv[1])):
        time.sleep(0.05 * (number % share.size == share.rank))
        share.wait_for_all()
