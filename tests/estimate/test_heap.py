"""glibc's heap: what is reused, what is mapped apart, what alignment costs."""

from stylegan_t.estimate.heap import LARGEST_MMAP_THRESHOLD, Heap

MIB = 2**20


def test_what_is_freed_together_serves_what_fits_into_it():
    heap = Heap()
    events = [(0, MIB), (0, 0)]  # mapped, and freed: from here on a MiB is no large piece
    events += [(i, MIB // 4) for i in range(1, 9)] + [(i, 0) for i in range(1, 9)]
    before = heap.play(events)
    assert 2 * MIB < before < 2.01 * MIB
    assert heap.play([(20, MIB // 2), (21, MIB // 2)]) == before


def test_an_aligned_piece_does_not_fit_where_one_of_its_own_size_was():
    size = MIB + 16
    first = [event for i in range(8) for event in ((i, size), (100 + i, 1024))]  # the small ones keep the large apart
    freed = [(i, 0) for i in range(8)]
    again = lambda size: Heap().play([(99, 2 * MIB), (99, 0), *first, *freed, *((200 + i, size) for i in range(8))])
    assert 15 * MIB < again(size) < 16.1 * MIB
    assert 8 * MIB < again(size - 128) < 8.1 * MIB


def test_the_largest_tensors_are_mapped_apart_and_leave_nothing_behind():
    size = LARGEST_MMAP_THRESHOLD + MIB
    events = [event for i in range(5) for event in ((i, size), (i, 0))]
    assert size <= Heap().play(events) < size + MIB


def test_a_heap_full_of_holes_stays_beside_what_is_mapped():
    large, small = 40 * MIB, MIB
    heap = Heap()
    heap.play([(0, 2 * MIB), (0, 0)])
    heap.play([(i, small) for i in range(1, 33)] + [(i, 0) for i in range(1, 33)])
    assert heap.play([(99, large)]) > large + 32 * small
