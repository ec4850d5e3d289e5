/* Preloaded into a process, counts what torch's CPU allocator holds: every tensor comes from posix_memalign.
 *
 * Sizes are rounded up to 512 bytes, as CUDA's caching allocator rounds them. `ledger_limit` makes further allocations
 * fail as a full card would.
 */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

enum { ROOM = 1 << 20, GRAIN = 512, FEWEST_BITS = 63 };
static uintptr_t blocks[ROOM];
static size_t sizes[ROOM];
static size_t live, peak, limit = SIZE_MAX;
static pthread_spinlock_t lock;

__attribute__((constructor)) static void begin(void) { pthread_spin_init(&lock, PTHREAD_PROCESS_PRIVATE); }

static size_t home(uintptr_t block) { return (block * 0x9E3779B97F4A7C15ull) >> 44; }

size_t ledger_live(void) { return live; }
size_t ledger_peak(void) { return peak; }
void ledger_reset_peak(void) { peak = live; }
void ledger_limit(size_t bytes) { limit = bytes; }

int posix_memalign(void **out, size_t alignment, size_t size) {
    size_t rounded = (size + GRAIN - 1) / GRAIN * GRAIN;
    if (live + rounded > limit) return ENOMEM;
    void *block = __libc_memalign(alignment, size);
    if (!block) return ENOMEM;
    *out = block;
    if ((uintptr_t)block & FEWEST_BITS) return 0;
    pthread_spin_lock(&lock);
    size_t place = home((uintptr_t)block);
    while (blocks[place] > 1) place = (place + 1) % ROOM; /* 0: never used, 1: used before */
    blocks[place] = (uintptr_t)block;
    sizes[place] = rounded;
    live += rounded;
    if (live > peak) peak = live;
    pthread_spin_unlock(&lock);
    return 0;
}

void free(void *block) {
    if (block && !((uintptr_t)block & FEWEST_BITS)) {
        pthread_spin_lock(&lock);
        size_t place = home((uintptr_t)block);
        while (blocks[place] && blocks[place] != (uintptr_t)block) place = (place + 1) % ROOM;
        if (blocks[place]) {
            blocks[place] = 1;
            live -= sizes[place];
        }
        pthread_spin_unlock(&lock);
    }
    __libc_free(block);
}
