/* Preloaded into a process, counts what torch's CPU allocator holds: every tensor comes from posix_memalign.
 *
 * Sizes are rounded up to 512 bytes, as CUDA's caching allocator rounds them. `ledger_passed` tells whether it has held
 * more than `ledger_limit` allows since that was last called.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

enum { ROOM = 1 << 20, GRAIN = 512, FEWEST_BITS = 63 };
static uintptr_t blocks[ROOM];
static size_t sizes[ROOM];
static size_t live, peak, limit = SIZE_MAX;
static int passed;
/* Free without any initialiser: another library's constructor allocates before one of ours would run. */
static atomic_flag held = ATOMIC_FLAG_INIT;

static void lock(void) {
    while (atomic_flag_test_and_set_explicit(&held, memory_order_acquire)) {
    }
}

static void unlock(void) { atomic_flag_clear_explicit(&held, memory_order_release); }

static size_t home(uintptr_t block) { return (block * 0x9E3779B97F4A7C15ull) >> 44; }

size_t ledger_live(void) { return live; }
size_t ledger_peak(void) { return peak; }
void ledger_reset_peak(void) { peak = live; }
int ledger_passed(void) { return passed; }
void ledger_limit(size_t bytes) {
    limit = bytes;
    passed = live > limit;
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    size_t rounded = (size + GRAIN - 1) / GRAIN * GRAIN;
    void *block = __libc_memalign(alignment, size);
    if (!block) return ENOMEM;
    *out = block;
    if ((uintptr_t)block & FEWEST_BITS) return 0;
    lock();
    size_t place = home((uintptr_t)block);
    while (blocks[place] > 1) place = (place + 1) % ROOM; /* 0: never used, 1: used before */
    blocks[place] = (uintptr_t)block;
    sizes[place] = rounded;
    live += rounded;
    if (live > peak) peak = live;
    if (live > limit) passed = 1;
    unlock();
    return 0;
}

void free(void *block) {
    if (block && !((uintptr_t)block & FEWEST_BITS)) {
        lock();
        size_t place = home((uintptr_t)block);
        while (blocks[place] && blocks[place] != (uintptr_t)block) place = (place + 1) % ROOM;
        if (blocks[place]) {
            blocks[place] = 1;
            live -= sizes[place];
        }
        unlock();
    }
    __libc_free(block);
}
