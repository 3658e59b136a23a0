// SPDX-License-Identifier: Apache-2.0
#ifndef DROVER_PROCESS_H
#define DROVER_PROCESS_H

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

// The descriptor under which a child finds its socket.
#define DROVER_CHILD_DESCRIPTOR 3

extern char **environ;

static inline char **drover_environment(void) { return environ; }

// Makes two connected sockets that no other program inherits. Returns 0 or an error number.
static inline int drover_socket_pair(int pair[2]) {
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0 ? 0 : errno;
}

// Starts a program as the leader of a process group of its own, with no signal blocked or ignored, nothing to read from,
// the parent's output, `descriptor` as DROVER_CHILD_DESCRIPTOR, and no other descriptor. Returns 0 or an error number.
static inline int drover_spawn(pid_t *pid, const char *path, char *const argv[], char *const envp[], int descriptor) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int code = posix_spawn_file_actions_init(&actions);
    if (code != 0) return code;
    code = posix_spawnattr_init(&attributes);
    if (code == 0) {
        if (code == 0) code = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", 0, 0);
        if (code == 0) code = posix_spawn_file_actions_adddup2(&actions, descriptor, DROVER_CHILD_DESCRIPTOR);
        if (code == 0) code = posix_spawn_file_actions_addclosefrom_np(&actions, DROVER_CHILD_DESCRIPTOR + 1);
        if (code == 0) code = posix_spawnattr_setpgroup(&attributes, 0);
        if (code == 0) code = posix_spawnattr_setsigmask(&attributes, &none);
        if (code == 0) code = posix_spawnattr_setsigdefault(&attributes, &all);
        if (code == 0)
            code = posix_spawnattr_setflags(&attributes,
                                            POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        if (code == 0) code = posix_spawn(pid, path, &actions, &attributes, argv, envp);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

// Looks whether a child has ended, and leaves it to be reaped. Returns 0: it runs; 1: it exited with *status; 2: the signal
// *status ended it; -1: there is no such child.
static inline int drover_look_at_child(pid_t pid, int *status) {
    siginfo_t info;
    info.si_pid = 0;
    int result;
    do result = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG);
    while (result != 0 && errno == EINTR);
    if (result != 0) return -1;
    if (info.si_pid == 0) return 0;
    *status = info.si_status;
    return info.si_code == CLD_EXITED ? 1 : 2;
}

// Waits for a child that was killed, so that the system forgets it.
static inline void drover_reap(pid_t pid) {
    while (waitpid(pid, (int *)0, 0) < 0 && errno == EINTR) {}
}

static inline void drover_kill_own_group(int number) {
    (void)number;
    kill(0, SIGKILL);
}

// The process's group is to die with the thread of its parent that started it. The thread that calls must last as long as
// the process. A signal does it that nobody uses, since SIGKILL would spare the rest of the group. Returns 0, or an error
// number if it can't be done or the parent is gone already.
static inline int drover_die_with_parent(pid_t parent) {
    if (getpgrp() != getpid()) return EPERM;
    struct sigaction action = {0};
    action.sa_handler = drover_kill_own_group;
    int number = SIGRTMAX - 2;
    if (sigaction(number, &action, (struct sigaction *)0) != 0) return errno;
    if (prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0) return errno;
    return getppid() == parent ? 0 : ESRCH;
}

// Lets all signals be delivered to this thread, and to programs that it starts.
static inline void drover_unblock_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, (sigset_t *)0);
}

#endif
