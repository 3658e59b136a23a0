// SPDX-License-Identifier: Apache-2.0
#ifndef DROVER_PROCESS_H
#define DROVER_PROCESS_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
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

// The header defines it for _GNU_SOURCE only.
#define DROVER_SPAWN_SETSID 0x80

// Starts a program as the leader of a session of its own, with no signal blocked or ignored, nothing to read from,
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
        if (code == 0) code = posix_spawnattr_setsigmask(&attributes, &none);
        if (code == 0) code = posix_spawnattr_setsigdefault(&attributes, &all);
        if (code == 0)
            code = posix_spawnattr_setflags(&attributes,
                                            DROVER_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
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

// Sends a signal (0: none) to all processes of a session but this one. Process groups would not do: programs are often
// started in groups of their own. Returns how many have not ended; those that nobody has reaped yet have. It allocates
// nothing and takes no lock, so that signal handlers may call it.
static inline int drover_signal_session(pid_t session, int number) {
    int folder = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return 0;
    pid_t own = getpid();
    int living = 0;
    _Alignas(8) char entries[4096];
    for (;;) {
        long count = syscall(SYS_getdents64, folder, entries, sizeof entries);
        if (count <= 0) break;
        for (long place = 0; place < count;) {
            // An entry: inode and offset of eight bytes each, length of two, type of one, name.
            uint16_t length;
            memcpy(&length, entries + place + 16, sizeof length);
            const char *name = entries + place + 19;
            place += length;
            pid_t pid = 0;
            const char *digit = name;
            for (; *digit >= '0' && *digit <= '9'; digit++) pid = pid * 10 + (*digit - '0');
            if (*digit != 0 || pid <= 0 || pid == own) continue;
            char path[48] = "/proc/";
            strcat(strcat(path, name), "/stat");
            int file = open(path, O_RDONLY | O_CLOEXEC);
            if (file < 0) continue;
            char text[256];
            long size = read(file, text, sizeof text - 1);
            close(file);
            if (size <= 0) continue;
            text[size] = 0;
            // After the name in parentheses: state, parent, group, session.
            const char *field = strrchr(text, ')');
            if (!field || !field[1]) continue;
            field += 2;
            char state = *field;
            for (int skipped = 0; skipped < 3 && field; skipped++) {
                field = strchr(field, ' ');
                if (field) field++;
            }
            if (!field || state == 'Z' || state == 'X') continue;
            pid_t its = 0;
            for (; *field >= '0' && *field <= '9'; field++) its = its * 10 + (*field - '0');
            if (its != session) continue;
            living++;
            if (number != 0) kill(pid, number);
        }
    }
    close(folder);
    return living;
}

// Kills the session that this process leads, itself last.
static inline void drover_kill_own_session(int number) {
    (void)number;
    pid_t own = getpid();
    // Once more for those that were started meanwhile.
    if (getsid(0) == own)
        for (int round = 0; round < 100 && drover_signal_session(own, SIGKILL) > 0; round++) {}
    kill(own, SIGKILL);
}

// The process's session is to die with the thread of its parent that started it. The thread that calls must last as long as
// the process. A signal does it that nobody uses, since SIGKILL would spare the rest. Returns 0, or an error
// number if it can't be done or the parent is gone already.
static inline int drover_die_with_parent(pid_t parent) {
    if (getsid(0) != getpid()) return EPERM;
    struct sigaction action = {0};
    action.sa_handler = drover_kill_own_session;
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
