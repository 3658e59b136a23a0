// SPDX-License-Identifier: Apache-2.0
#ifndef DROVER_ZMQ_SHIM_H
#define DROVER_ZMQ_SHIM_H

#include <errno.h>
#include <pthread.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <malloc.h>
#include <zmq.h>

// Swift can't import the EFD_* enumerators used as flags.
static inline int drover_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

// Swift can't call variadic functions such as syscall().

// Sleeps while *word == expected, at most until the CLOCK_MONOTONIC reading `deadline` (UINT64_MAX: for ever).
// Returns 0 when woken, or EAGAIN (the word had changed), EINTR or ETIMEDOUT. The caller's errno is left alone.
static inline int drover_futex_wait(const void *word, uint32_t expected, uint64_t deadline) {
    struct timespec until = {(time_t)(deadline / 1000000000u), (long)(deadline % 1000000000u)};
    int saved = errno;
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected,
                          deadline == UINT64_MAX ? (struct timespec *)0 : &until, (void *)0, FUTEX_BITSET_MATCH_ANY);
    int code = result == 0 ? 0 : errno;
    errno = saved;
    return code;
}

// Wakes at most `count` threads that sleep on the word. The word's memory isn't read. errno is left alone.
static inline void drover_futex_wake(const void *word, int count) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, (void *)0, (void *)0, 0);
    errno = saved;
}

static inline void drover_free_message_data(void *data, void *hint) {
    (void)hint;
    free(data);
}

// Makes a message of memory that came from malloc(), which libzmq frees when the last copy is gone.
static inline int drover_msg_adopt(zmq_msg_t *message, void *data, size_t count) {
    return zmq_msg_init_data(message, data, count, drover_free_message_data, (void *)0);
}

// The reading of CLOCK_MONOTONIC in nanoseconds.
static inline uint64_t drover_monotonic_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// The same clock as of the kernel's last tick, 1 to 10 ms ago; a quarter of the price.
static inline uint64_t drover_monotonic_rough_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// Names the current thread; 15 bytes count. pthread_setname_np() needs _GNU_SOURCE, which changes types of the C
// library that Swift's own module has imported without it.
static inline void drover_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

// What is at a path that is to become a socket: ENOENT nothing, ECONNREFUSED a socket that nobody listens at any more,
// 0 or another number somebody who listens or may, EEXIST a file of another kind. Waits for nothing.
static inline int drover_look_at_socket(const char *path) {
    struct stat status;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (lstat(path, &status) != 0) return errno;
    if (!S_ISSOCK(status.st_mode)) return EEXIST;
    if (strlen(path) >= sizeof address.sun_path) return ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) return errno;
    int code = connect(probe, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;
    close(probe);
    return code;
}

// Takes the lock of a directory, which leaves no file behind, and returns a descriptor to be closed; or the negative error
// number, -EWOULDBLOCK if somebody else has the lock.
static inline int drover_lock_directory(const char *path) {
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return -errno;
    if (flock(directory, LOCK_EX | LOCK_NB) == 0) return directory;
    int code = errno;
    close(directory);
    return -code;
}

// A bind of a socket to a path, to be done with a mask of one's own.
struct drover_path_bind {
    void *socket;
    const char *endpoint;
    const char *path;
    mode_t mode;
    int result, code;
};

static inline void *drover_bind_masked(void *argument) {
    struct drover_path_bind *bind = argument;
    // The mask belongs to the process, unless a thread has its own view of the file system: then nobody can connect between
    // the bind and the chmod. Where that is forbidden the chmod alone must do.
    if (syscall(SYS_unshare, 0x200 /* CLONE_FS */) == 0) umask(~bind->mode & 0777);
    bind->result = zmq_bind(bind->socket, bind->endpoint);
    if (bind->result == 0) bind->result = chmod(bind->path, bind->mode);
    bind->code = errno;
    return NULL;
}

// Binds a socket to a path that only those can use whom the mode lets. Returns as zmq_bind() does.
static inline int drover_bind_path(void *socket, const char *endpoint, const char *path, mode_t mode) {
    struct drover_path_bind bind = {socket, endpoint, path, mode, -1, 0};
    pthread_t thread;
    // libzmq lets a socket be used by another thread as long as there are barriers in between, as here.
    if (pthread_create(&thread, NULL, drover_bind_masked, &bind) == 0) {
        pthread_join(thread, NULL);
    } else {
        bind.result = zmq_bind(socket, endpoint);
        if (bind.result == 0) bind.result = chmod(path, mode);
        bind.code = errno;
    }
    errno = bind.code;
    return bind.result;
}

// Keeps this process from leaving a dump, and others of its user from reading its memory; whether it is kept from it.
static inline int drover_forbid_dumps(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0; }
static inline int drover_may_dump(void) { return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0; }

// The kernel's number of a socket: 0, or -1.
static inline int drover_socket_cookie(int descriptor, uint64_t *cookie) {
    socklen_t length = sizeof *cookie;
    return getsockopt(descriptor, SOL_SOCKET, SO_COOKIE, cookie, &length);
}

// A descriptor that is good for nothing but to be closed; negative if there is none.
static inline int drover_reserve_descriptor(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

// libzmq's own error numbers, which the importer doesn't fold through ZMQ_HAUSNUMERO.
static inline int drover_eterm(void) { return ETERM; }
static inline int drover_efsm(void) { return EFSM; }
static inline int drover_enocompatproto(void) { return ENOCOMPATPROTO; }
static inline int drover_emthread(void) { return EMTHREAD; }

// ZMQ_ZAP_ENFORCE_DOMAIN: the header of 4.3.4 lists it among the drafts, but a library built without drafts has it.
static inline int drover_zap_enforce_domain(void) { return 93; }

/// Gives the kernel back what lies free in the heaps of the C library; whether there was anything.
///
/// Other C libraries have no such call.
static inline int drover_trim_heaps(void) {
#ifdef __GLIBC__
    return malloc_trim(0);
#else
    return 0;
#endif
}

/// How many bytes of the C library's heaps are in use; 0 where it doesn't say.
static inline size_t drover_heap_bytes_in_use(void) {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    return mallinfo2().uordblks;
#else
    return 0;
#endif
}

#endif
