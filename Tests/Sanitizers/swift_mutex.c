// SPDX-License-Identifier: Apache-2.0
//
// Shows ThreadSanitizer what Swift's Mutex does when threads contend for it.
//
// A lock that is free is taken by an atomic instruction in the caller, which ThreadSanitizer sees. One that isn't is
// taken and released by these two functions of libswiftSynchronization, which isn't instrumented: what one thread wrote
// under the lock would look like a race with the next thread. `make test-thread` links this file into the executables,
// where it comes before the library; it does what the library does and says that it happened. So nothing about a Mutex
// needs to be suppressed, and a race beside one is still found.

// For RTLD_NEXT.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

#define LOCK_SLOWLY "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK_SLOWLY "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"
#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context))

typedef SWIFT void (*lock_function)(uint32_t thread, SELF void *mutex);
typedef SWIFT void (*unlock_function)(SELF void *mutex);

static lock_function lock;
static unlock_function unlock;

__attribute__((constructor)) static void find(void) {
    lock = (lock_function)dlsym(RTLD_NEXT, LOCK_SLOWLY);
    unlock = (unlock_function)dlsym(RTLD_NEXT, UNLOCK_SLOWLY);
    // Another version of the library: its functions have other names or are gone.
    if (!lock || !unlock) abort();
}

SWIFT void drover_lock_slowly(uint32_t thread, SELF void *mutex) __asm__(LOCK_SLOWLY);
SWIFT void drover_lock_slowly(uint32_t thread, SELF void *mutex) {
    lock(thread, mutex);
    __tsan_acquire(mutex);
}

SWIFT void drover_unlock_slowly(SELF void *mutex) __asm__(UNLOCK_SLOWLY);
SWIFT void drover_unlock_slowly(SELF void *mutex) {
    __tsan_release(mutex);
    unlock(mutex);
}
