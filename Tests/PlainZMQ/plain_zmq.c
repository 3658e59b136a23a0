// SPDX-License-Identifier: Apache-2.0
//
// What plain libzmq does on this machine: the baseline that Drover is measured against.
//
// One process per role: a ROUTER that echoes, and DEALER clients that measure. One frame per message, no
// delimiter, no serialisation, no correlation: the least that a C program can do, done as well as it can be.
// Each role prints `key=value` words on one line of standard output.

#define _GNU_SOURCE
#include "plain_zmq.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

// What the first byte of a request asks the server to do.
enum { OP_ECHO = 0, OP_STREAM = 1, OP_STAMP = 2 };

// "Send me `count` messages of `size` bytes."
struct stream_request {
    uint8_t op;
    uint8_t padding[7];
    uint64_t count;
    uint64_t size;
};

// An echo into which the server writes the time at which it answers.
struct stamped {
    uint8_t op;
    uint8_t padding[7];
    uint64_t sent_nanoseconds;
};

static void die(const char *what)
{
    fprintf(stderr, "PlainZMQ: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(EXIT_FAILURE);
}

void check(bool succeeded, const char *what)
{
    if (!succeeded) die(what);
}

static uint64_t now_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

// MARK: Sockets

void set_option(void *socket, int option, int value)
{
    check(zmq_setsockopt(socket, option, &value, sizeof value) == 0, "zmq_setsockopt");
}

void *make_socket(void *context, int kind)
{
    void *socket = zmq_socket(context, kind);
    check(socket != NULL, "zmq_socket");
    set_option(socket, ZMQ_LINGER, 0);
    set_option(socket, ZMQ_SNDHWM, HIGH_WATER_MARK);
    set_option(socket, ZMQ_RCVHWM, HIGH_WATER_MARK);
    return socket;
}

void *connect_to(void *context, const char *endpoint)
{
    void *socket = make_socket(context, ZMQ_DEALER);
    check(zmq_connect(socket, endpoint) == 0, "zmq_connect");
    return socket;
}

bool receive(void *socket, zmq_msg_t *message, int flags)
{
    for (;;) {
        if (zmq_msg_recv(message, socket, flags) >= 0) return true;
        if (zmq_errno() == EAGAIN || zmq_errno() == ETERM) return false;
        check(zmq_errno() == EINTR, "zmq_msg_recv");
    }
}

bool send_message(void *socket, zmq_msg_t *message, int flags)
{
    for (;;) {
        if (zmq_msg_send(message, socket, flags) >= 0) return true;
        if (zmq_errno() == ETERM) return false;
        check(zmq_errno() == EINTR, "zmq_msg_send");
    }
}

void send_copy(void *socket, const void *bytes, size_t size)
{
    zmq_msg_t message;
    check(zmq_msg_init_size(&message, size) == 0, "zmq_msg_init_size");
    memcpy(zmq_msg_data(&message), bytes, size);
    check(send_message(socket, &message, 0), "zmq_msg_send");
}

static uint8_t *make_payload(size_t size, uint8_t op)
{
    uint8_t *payload = malloc(size);
    check(payload != NULL, "malloc");
    memset(payload, 'x', size);
    payload[0] = op;
    return payload;
}

// MARK: Server

static void *shut_down_on_signal(void *context)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    int received;
    sigwait(&signals, &received);
    zmq_ctx_shutdown(context);
    return NULL;
}

void end_on_signal(void *context)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    pthread_t thread;
    check(pthread_create(&thread, NULL, shut_down_on_signal, context) == 0, "pthread_create");
    pthread_detach(thread);
}

static bool stream(void *socket, zmq_msg_t *peer, const struct stream_request *request)
{
    size_t size = (size_t)request->size;
    uint8_t *payload = make_payload(size, OP_ECHO);
    bool open = true;
    for (uint64_t i = 0; open && i < request->count; i++) {
        zmq_msg_t destination, event;
        zmq_msg_init(&destination);
        zmq_msg_copy(&destination, peer);
        check(zmq_msg_init_size(&event, size) == 0, "zmq_msg_init_size");
        memcpy(zmq_msg_data(&event), payload, size);
        open = send_message(socket, &destination, ZMQ_SNDMORE) && send_message(socket, &event, 0);
        zmq_msg_close(&destination);
        zmq_msg_close(&event);
    }
    free(payload);
    return open;
}

// Answers one request; the messages are moved on, never copied.
static bool answer(void *socket, zmq_msg_t *peer, zmq_msg_t *request)
{
    size_t size = zmq_msg_size(request);
    uint8_t *bytes = zmq_msg_data(request);
    uint8_t op = size > 0 ? bytes[0] : OP_ECHO;
    if (op == OP_STREAM && size == sizeof(struct stream_request)) {
        struct stream_request wanted;
        memcpy(&wanted, bytes, sizeof wanted);
        return stream(socket, peer, &wanted);
    }
    if (op == OP_STAMP && size >= sizeof(struct stamped)) {
        uint64_t now = now_nanoseconds();
        memcpy(bytes + offsetof(struct stamped, sent_nanoseconds), &now, sizeof now);
    }
    return send_message(socket, peer, ZMQ_SNDMORE) && send_message(socket, request, 0);
}

static int server(void *context, char **arguments)
{
    end_on_signal(context);
    void *socket = make_socket(context, ZMQ_ROUTER);
    // Without it a ROUTER drops what exceeds the high-water mark; with it, it waits.
    set_option(socket, ZMQ_ROUTER_MANDATORY, 1);
    check(zmq_bind(socket, arguments[0]) == 0, "zmq_bind");
    char endpoint[256];
    size_t length = sizeof endpoint;
    check(zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &length) == 0, "zmq_getsockopt");
    printf("endpoint=%s\n", endpoint);
    fflush(stdout);

    zmq_msg_t peers[BATCH], requests[BATCH];
    for (int i = 0; i < BATCH; i++) {
        zmq_msg_init(&peers[i]);
        zmq_msg_init(&requests[i]);
    }
    bool open = true;
    while (open) {
        int count = 0;
        // The first one is waited for: a blocking receive is cheaper than a poll before it.
        while (count < BATCH && receive(socket, &peers[count], count == 0 ? 0 : ZMQ_DONTWAIT)) {
            // The parts of a message arrive together.
            receive(socket, &requests[count], 0);
            count++;
        }
        open = count > 0;
        for (int i = 0; open && i < count; i++) open = answer(socket, &peers[i], &requests[i]);
    }
    for (int i = 0; i < BATCH; i++) {
        zmq_msg_close(&peers[i]);
        zmq_msg_close(&requests[i]);
    }
    zmq_close(socket);
    return EXIT_SUCCESS;
}

// MARK: Clients

static int ascending(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void print_percentiles(const char *role, uint64_t *nanoseconds, long count)
{
    qsort(nanoseconds, (size_t)count, sizeof *nanoseconds, ascending);
    printf(
        "role=%s count=%ld p50_us=%.3f p99_us=%.3f max_us=%.3f\n", role, count, (double)nanoseconds[count / 2] / 1e3,
        (double)nanoseconds[count * 99 / 100] / 1e3, (double)nanoseconds[count - 1] / 1e3);
}

static long number(const char *text)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || *end != '\0' || value <= 0) {
        fprintf(stderr, "PlainZMQ: not a positive number: %s\n", text);
        exit(EXIT_FAILURE);
    }
    return value;
}

// blocking ENDPOINT N SIZE: one call outstanding.
static int blocking(void *context, char **arguments)
{
    void *socket = connect_to(context, arguments[0]);
    long count = number(arguments[1]), warm_up = count / 10 + 100;
    size_t size = (size_t)number(arguments[2]);
    uint8_t *payload = make_payload(size, OP_ECHO);
    uint64_t *took = malloc((size_t)count * sizeof *took);
    check(took != NULL, "malloc");
    zmq_msg_t reply;
    zmq_msg_init(&reply);
    for (long i = -warm_up; i < count; i++) {
        uint64_t start = now_nanoseconds();
        send_copy(socket, payload, size);
        check(receive(socket, &reply, 0), "zmq_msg_recv");
        if (i >= 0) took[i] = now_nanoseconds() - start;
    }
    print_percentiles("blocking", took, count);
    zmq_msg_close(&reply);
    free(took);
    free(payload);
    zmq_close(socket);
    return EXIT_SUCCESS;
}

// latency ENDPOINT N SIZE PAUSE: from the server's answer to its receipt here, with a pause of so many microseconds
// before each call, so that everybody sleeps when it comes.
static int latency(void *context, char **arguments)
{
    void *socket = connect_to(context, arguments[0]);
    long count = number(arguments[1]), warm_up = count / 10 + 10;
    size_t size = (size_t)number(arguments[2]);
    if (size < sizeof(struct stamped)) size = sizeof(struct stamped);
    long pause_nanoseconds = number(arguments[3]) * 1000;
    struct timespec pause = {.tv_sec = pause_nanoseconds / 1000000000, .tv_nsec = pause_nanoseconds % 1000000000};
    uint8_t *payload = make_payload(size, OP_STAMP);
    uint64_t *took = malloc((size_t)count * sizeof *took);
    check(took != NULL, "malloc");
    zmq_msg_t reply;
    zmq_msg_init(&reply);
    for (long i = -warm_up; i < count; i++) {
        nanosleep(&pause, NULL);
        send_copy(socket, payload, size);
        check(receive(socket, &reply, 0), "zmq_msg_recv");
        uint64_t now = now_nanoseconds(), sent;
        memcpy(
            &sent, (uint8_t *)zmq_msg_data(&reply) + offsetof(struct stamped, sent_nanoseconds), sizeof sent);
        if (i >= 0) took[i] = now - sent;
    }
    print_percentiles("latency", took, count);
    zmq_msg_close(&reply);
    free(took);
    free(payload);
    zmq_close(socket);
    return EXIT_SUCCESS;
}

static void keep_payload(void *data, void *hint)
{
    (void)data;
    (void)hint;
}

// Makes `count` echoes, at most `window` of them outstanding.
static void echo(void *socket, const uint8_t *payload, size_t size, long count, long window, bool shares_payload)
{
    zmq_msg_t message;
    zmq_msg_init(&message);
    long sent = 0, received = 0;
    while (received < count) {
        while (sent < count && sent - received < window) {
            if (shares_payload) {
                zmq_msg_t request;
                check(
                    zmq_msg_init_data(&request, (void *)payload, size, keep_payload, NULL) == 0, "zmq_msg_init_data");
                check(send_message(socket, &request, 0), "zmq_msg_send");
            } else {
                send_copy(socket, payload, size);
            }
            sent++;
        }
        check(receive(socket, &message, 0), "zmq_msg_recv");
        received++;
        for (int i = 1; i < BATCH && received < sent && receive(socket, &message, ZMQ_DONTWAIT); i++) received++;
    }
    zmq_msg_close(&message);
}

// pipelined ENDPOINT N SIZE WINDOW: small echoes, each with a message of its own.
static int pipelined(void *context, char **arguments)
{
    void *socket = connect_to(context, arguments[0]);
    long count = number(arguments[1]), window = number(arguments[3]);
    size_t size = (size_t)number(arguments[2]);
    uint8_t *payload = make_payload(size, OP_ECHO);
    echo(socket, payload, size, count / 10 + window, window, false);
    uint64_t start = now_nanoseconds();
    echo(socket, payload, size, count, window, false);
    double seconds = (double)(now_nanoseconds() - start) / 1e9;
    printf(
        "role=pipelined count=%ld all=%ld window=%ld calls_per_s=%.0f\n", count, count / 10 + window + count, window,
        (double)count / seconds);
    free(payload);
    zmq_close(socket);
    return EXIT_SUCCESS;
}

// bulk ENDPOINT N BYTES WINDOW: large echoes out of one buffer, without a copy on either side.
static int bulk(void *context, char **arguments)
{
    void *socket = connect_to(context, arguments[0]);
    long count = number(arguments[1]), window = number(arguments[3]);
    size_t size = (size_t)number(arguments[2]);
    uint8_t *payload = make_payload(size, OP_ECHO);
    echo(socket, payload, size, count / 10 + window, window, true);
    uint64_t start = now_nanoseconds();
    echo(socket, payload, size, count, window, true);
    double seconds = (double)(now_nanoseconds() - start) / 1e9;
    // Each byte is counted once, although it goes there and back.
    printf(
        "role=bulk count=%ld window=%ld mib_per_s=%.1f\n", count, window,
        (double)count * (double)size / seconds / (1024 * 1024));
    // The messages point into the payload, so the context goes first: see main.
    zmq_close(socket);
    return EXIT_SUCCESS;
}

static void receive_events(void *socket, long count, size_t size)
{
    struct stream_request request = {.op = OP_STREAM, .count = (uint64_t)count, .size = size};
    send_copy(socket, &request, sizeof request);
    zmq_msg_t event;
    zmq_msg_init(&event);
    for (long i = 0; i < count; i++) check(receive(socket, &event, 0), "zmq_msg_recv");
    zmq_msg_close(&event);
}

// events ENDPOINT N SIZE: one way, server to client.
static int events(void *context, char **arguments)
{
    void *socket = connect_to(context, arguments[0]);
    long count = number(arguments[1]);
    size_t size = (size_t)number(arguments[2]);
    receive_events(socket, count / 10 + 1, size);
    uint64_t start = now_nanoseconds();
    receive_events(socket, count, size);
    double seconds = (double)(now_nanoseconds() - start) / 1e9;
    printf("role=events count=%ld events_per_s=%.0f\n", count, (double)count / seconds);
    zmq_close(socket);
    return EXIT_SUCCESS;
}

// idle ENDPOINT: one echo, then connected and silent until it is asked to end.
static int idle(void *context, char **arguments)
{
    end_on_signal(context);
    void *socket = make_socket(context, ZMQ_DEALER);
    // Whoever wants to know that the peer still lives pays for this much.
    set_option(socket, ZMQ_HEARTBEAT_IVL, 2000);
    set_option(socket, ZMQ_HEARTBEAT_TIMEOUT, 6000);
    check(zmq_connect(socket, arguments[0]) == 0, "zmq_connect");
    zmq_msg_t reply;
    zmq_msg_init(&reply);
    send_copy(socket, "\0", 1);
    check(receive(socket, &reply, 0), "zmq_msg_recv");
    printf("role=idle ready=1\n");
    fflush(stdout);
    while (receive(socket, &reply, 0)) continue;
    zmq_msg_close(&reply);
    zmq_close(socket);
    return EXIT_SUCCESS;
}

// version: which libzmq this is.
static int version(void *context, char **arguments)
{
    (void)context;
    (void)arguments;
    int major, minor, patch;
    zmq_version(&major, &minor, &patch);
    printf("role=version libzmq=%d.%d.%d\n", major, minor, patch);
    return EXIT_SUCCESS;
}

// MARK: Main

static const struct {
    const char *name;
    int argument_count;
    int (*run)(void *context, char **arguments);
    const char *arguments;
} roles[] = {
    {"server", 1, server, "ENDPOINT"},
    {"blocking", 3, blocking, "ENDPOINT N SIZE"},
    {"latency", 4, latency, "ENDPOINT N SIZE PAUSE_US"},
    {"pipelined", 4, pipelined, "ENDPOINT N SIZE WINDOW"},
    {"events", 3, events, "ENDPOINT N SIZE"},
    {"bulk", 4, bulk, "ENDPOINT N BYTES WINDOW"},
    {"idle", 1, idle, "ENDPOINT"},
    {"broker", 0, broker, ""},
    {"broker-worker", 1, broker_worker, "ENDPOINT"},
    {"proxy", 0, proxy, ""},
    {"proxy-worker", 1, proxy_worker, "ENDPOINT"},
    {"version", 0, version, ""},
};

// with-parent PROGRAM ARGUMENT...: becomes that program, and ends when the parent does.
static int with_parent(char **words)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execvp(words[0], words);
    fprintf(stderr, "PlainZMQ: can't start %s: %s\n", words[0], strerror(errno));
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "with-parent") == 0) return with_parent(argv + 2);
    for (size_t i = 0; argc > 1 && i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(argv[1], roles[i].name) != 0 || argc != 2 + roles[i].argument_count) continue;
        void *context = zmq_ctx_new();
        check(context != NULL, "zmq_ctx_new");
        int status = roles[i].run(context, argv + 2);
        zmq_ctx_term(context);
        return status;
    }
    fprintf(stderr, "usage:\n");
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        fprintf(stderr, "  PlainZMQ %s %s\n", roles[i].name, roles[i].arguments);
    fprintf(stderr, "  PlainZMQ with-parent PROGRAM ARGUMENT...\n");
    return 2;
}
