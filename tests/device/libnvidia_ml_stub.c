/* A stand-in for libnvidia-ml.so.1 that drives the real Python binding on machines without a GPU.
 *
 * The environment is the script:
 *   STUB_GPUS=2                                   how many GPUs (default 1)
 *   STUB_FAIL=nvmlDeviceGetPowerUsage=3,...       return this status from these functions
 *   STUB_ENERGY=100,200,50                        energy counter in mJ, one value a call, the last one for ever
 *   STUB_LOST_AFTER=1                             the GPU is lost after so many readings of its clock
 *   STUB_LOST_FILE=/path                          the GPU is lost once there is such a file
 *   STUB_REASONS=64  STUB_THERMAL_NS=10,20        event reasons; thermal counter, one value a call
 *   STUB_PIDS=11,self,parent                      processes with a context (default: self, who asks)
 *   STUB_SM=self:90;self:90,77:40,12:5:-2000000   who used the SMs, per cent, and when (us from now, default 0): what the
 *                                                 driver sampled before its first question, before its second, ... and
 *                                                 from the last one on; the default is self:50
 *   STUB_SM_STALE=1                               samples older than asked for come back, too
 *   STUB_SLOW_MS=500                              how long every question takes
 *   STUB_CONTEXTS=/folder                         more of them: those alive of the files there, named by id
 *   STUB_WATTS=350                                the energy counter runs at this power, by the clock
 *   STUB_NAME="NVIDIA H100 80GB HBM3"             the model, in place of "NVIDIA Stub 0"
 *   STUB_MEMORY=85899345920                       bytes of memory (default 1000)
 *   STUB_MIG=1                                    the first GPU is cut into two slices
 *   STUB_MARGIN=5                                 degrees below slowdown
 * Compiled with -DOLD_DRIVER it lacks the symbols that came after driver 450.
 */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };

typedef struct { int gpu; int slice; } device;           /* slice -1: the whole GPU */
typedef struct { uint32_t pid; unsigned long long used; uint32_t gi, ci; } process;
typedef struct { uint32_t pid; unsigned long long at; uint32_t sm, memory, encoder, decoder; } use;
typedef struct { uint32_t id, scope; int64_t at, latency; int type, status; unsigned long long value; } field;

static device whole[8] = {{0, -1}, {1, -1}, {2, -1}, {3, -1}, {4, -1}, {5, -1}, {6, -1}, {7, -1}};
static device slices[2] = {{0, 0}, {0, 1}};
static int clock_reads = 0, energy_calls = 0, field_calls = 0, sm_calls = 0;

void stub_reset(void) { clock_reads = energy_calls = field_calls = sm_calls = 0; }

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

/* The call-th entry of a comma-separated list; its last one from then on. */
static unsigned long long entry(const char *name, int call, unsigned long long otherwise) {
    const char *text = getenv(name);
    if (!text) return otherwise;
    for (; call > 0 && strchr(text, ','); call--) text = strchr(text, ',') + 1;
    return strtoull(text, NULL, 10);
}

static long pid_of(const char *word) {
    return !strncmp(word, "self", 4) ? getpid() : !strncmp(word, "parent", 6) ? getppid() : atol(word);
}

static int status(const char *function, const device *d) {
    long ms = number("STUB_SLOW_MS", 0);
    struct timespec nap = {ms / 1000, ms % 1000 * 1000000};
    if (ms) nanosleep(&nap, NULL);
    const char *text = getenv("STUB_FAIL"), *found = text ? strstr(text, function) : NULL;
    if (found && found[strlen(function)] == '=') return atoi(found + strlen(function) + 1);
    if (d && clock_reads >= number("STUB_LOST_AFTER", 1 << 30)) return LOST;
    if (d && getenv("STUB_LOST_FILE") && !access(getenv("STUB_LOST_FILE"), F_OK)) return LOST;
    return OK;
}

#define BEGIN(d) do { int s = (d) ? status(__func__, (d)) : INVALID; if (s) return s; } while (0)
#define PLAIN do { int s = status(__func__, NULL); if (s) return s; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; PLAIN; return OK; }
int nvmlShutdown(void) { PLAIN; return OK; }
const char *nvmlErrorString(int code) { (void)code; return "stub"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "999.1"); return OK; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = (int)number("STUB_CUDA", 13020); return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { PLAIN; *count = (unsigned)number("STUB_GPUS", 1); return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **d) {
    if (index >= (unsigned)number("STUB_GPUS", 1)) return INVALID;
    *d = &whole[index];
    return OK;
}

int nvmlDeviceGetUUID(device *d, char *text, unsigned size) {
    BEGIN(d);
    if (d->slice >= 0) snprintf(text, size, "MIG-%d", d->slice);
    else snprintf(text, size, "GPU-%d", d->gpu);
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device **d) {
    int n = atoi(uuid + 4);
    if (!strncmp(uuid, "MIG-", 4) && number("STUB_MIG", 0) && n < 2) *d = &slices[n];
    else if (!strncmp(uuid, "GPU-", 4) && n < number("STUB_GPUS", 1)) *d = &whole[n];
    else return NOT_FOUND;
    return status(__func__, *d);
}

int nvmlDeviceGetName(device *d, char *text, unsigned size) {
    BEGIN(d);
    const char *name = getenv("STUB_NAME");
    if (name && d->slice < 0) snprintf(text, size, "%s", name);
    else snprintf(text, size, d->slice < 0 ? "NVIDIA Stub %d" : "NVIDIA Stub %d MIG 1g.5gb", d->gpu);
    return OK;
}

int nvmlDeviceGetMigMode(device *d, unsigned *now, unsigned *next) {
    BEGIN(d);
    *now = *next = d->gpu == 0 && number("STUB_MIG", 0);
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(device *d, unsigned *count) { BEGIN(d); *count = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(device *d, unsigned index, device **part) {
    BEGIN(d);
    if (index > 1) return NOT_FOUND;
    *part = &slices[index];
    return OK;
}
int nvmlDeviceIsMigDeviceHandle(device *d, unsigned *is) { BEGIN(d); *is = d->slice >= 0; return OK; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device *d, device **gpu) { BEGIN(d); *gpu = &whole[d->gpu]; return OK; }

int nvmlDeviceGetClockInfo(device *d, int kind, unsigned *mhz) {
    BEGIN(d);
    if (kind == 1) clock_reads++;
    *mhz = kind == 1 ? 1980u + (unsigned)d->gpu : 3201u;
    return OK;
}
int nvmlDeviceGetMaxClockInfo(device *d, int kind, unsigned *mhz) { BEGIN(d); *mhz = kind == 1 ? 1980 : 3201; return OK; }
int nvmlDeviceGetTemperature(device *d, int sensor, unsigned *c) { (void)sensor; BEGIN(d); *c = 41; return OK; }
int nvmlDeviceGetTemperatureThreshold(device *d, int kind, unsigned *c) { (void)kind; BEGIN(d); *c = 90; return OK; }
int nvmlDeviceGetPowerUsage(device *d, unsigned *mw) { BEGIN(d); *mw = 350500; return OK; }
int nvmlDeviceGetEnforcedPowerLimit(device *d, unsigned *mw) { BEGIN(d); *mw = 700000; return OK; }
int nvmlDeviceGetPersistenceMode(device *d, int *on) { BEGIN(d); *on = 1; return OK; }
int nvmlDeviceGetEccMode(device *d, int *now, int *next) { BEGIN(d); *now = *next = 1; return OK; }
int nvmlDeviceGetComputeMode(device *d, int *mode) { BEGIN(d); *mode = (int)number("STUB_MODE", 0); return OK; }
int nvmlDeviceGetCudaComputeCapability(device *d, int *major, int *minor) { BEGIN(d); *major = 9; *minor = 0; return OK; }
int nvmlDeviceGetUtilizationRates(device *d, unsigned rates[2]) { BEGIN(d); rates[0] = 3; rates[1] = 1; return OK; }
int nvmlDeviceGetMemoryInfo(device *d, unsigned long long m[3]) {
    BEGIN(d);
    m[0] = d->slice < 0 ? (unsigned long long)number("STUB_MEMORY", 1000) : 100;
    m[1] = m[0] - 10;
    m[2] = 10;
    return OK;
}

static int processes(process *list, unsigned *room) {
    const char *text = getenv("STUB_PIDS") ? getenv("STUB_PIDS") : getenv("STUB_CONTEXTS") ? "" : "self";
    unsigned count = 0;
    for (; text && *text; text = strchr(text, ',') ? strchr(text, ',') + 1 : "") {
        if (list && count < *room) list[count] = (process){(uint32_t)pid_of(text), 1 << 20, 0, 0};
        count++;
    }
    DIR *contexts = getenv("STUB_CONTEXTS") ? opendir(getenv("STUB_CONTEXTS")) : NULL;
    for (struct dirent *one; contexts && (one = readdir(contexts));) {
        int pid = atoi(one->d_name);
        if (pid <= 0 || kill(pid, 0)) continue;
        if (list && count < *room) list[count] = (process){(uint32_t)pid, 1 << 20, 0, 0};
        count++;
    }
    if (contexts) closedir(contexts);
    int small = count > *room;
    *room = count;
    return small ? TOO_SMALL : OK;
}
int nvmlDeviceGetComputeRunningProcesses_v2(device *d, unsigned *room, process *list) { BEGIN(d); return processes(list, room); }

/* As the driver does: asked without room it says how much it needs, whether or not there is anything to tell. */
int nvmlDeviceGetProcessUtilization(device *d, use *list, unsigned *room, unsigned long long since) {
    BEGIN(d);
    if (d->slice >= 0 || (d->gpu == 0 && number("STUB_MIG", 0))) return NOT_SUPPORTED;
    if (!list) { *room = 100; return TOO_SMALL; }
    const char *text = getenv("STUB_SM") ? getenv("STUB_SM") : "self:50";
    for (int call = sm_calls++; call > 0 && strchr(text, ';'); call--) text = strchr(text, ';') + 1;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    unsigned count = 0;
    for (; *text && *text != ';' && count < *room; text += strcspn(text, ",;"), text += *text == ',') {
        const char *share = strchr(text, ':') + 1, *when = share + strcspn(share, ":,;");
        unsigned long long at = now.tv_sec * 1000000ull + now.tv_nsec / 1000 + (*when == ':' ? atol(when + 1) : 0);
        if (at > since || number("STUB_SM_STALE", 0))
            list[count++] = (use){(uint32_t)pid_of(text), at, (uint32_t)atol(share), 0, 0, 0};
    }
    *room = count;
    return count ? OK : NOT_FOUND;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(device *d, unsigned long long *mask) {
    BEGIN(d);
    *mask = entry("STUB_REASONS", 0, 1);
    return OK;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetComputeRunningProcesses_v3(device *d, unsigned *room, process *list) { BEGIN(d); return processes(list, room); }
int nvmlDeviceGetCurrentClocksEventReasons(device *d, unsigned long long *mask) {
    BEGIN(d);
    return nvmlDeviceGetCurrentClocksThrottleReasons(d, mask);
}
int nvmlDeviceGetTemperatureV(device *d, int query[3]) { BEGIN(d); query[2] = 42; return OK; }
int nvmlDeviceGetMarginTemperature(device *d, int query[2]) { BEGIN(d); query[1] = (int)number("STUB_MARGIN", 45); return OK; }
int nvmlDeviceGetTotalEnergyConsumption(device *d, unsigned long long *mj) {
    BEGIN(d);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *mj = entry("STUB_ENERGY", energy_calls++, 1000);
    *mj += (unsigned long long)((double)number("STUB_WATTS", 0) * ((double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6));
    return OK;
}
int nvmlDeviceGetFieldValues(device *d, int count, field *fields) {
    BEGIN(d);
    for (int i = 0; i < count; i++) {
        fields[i].status = fields[i].id == 75 || fields[i].id == 74 ? OK : NOT_SUPPORTED;
        fields[i].value = fields[i].id == 75 ? entry("STUB_THERMAL_NS", field_calls, 0) : 0;
    }
    field_calls++;
    return OK;
}
#endif
