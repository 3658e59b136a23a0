// SPDX-License-Identifier: Apache-2.0
//
// The broker that a C programmer would write with plain libzmq, done as well as it can be: clients on one ROUTER, workers
// on another, each request given to the worker with the fewest outstanding, never more than its credit. One message per
// frame; nothing is copied: the frame that was received is the frame that is sent on.

#include "plain_zmq.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_PEERS = 4096,
    ROUTE_BYTES = 16,
    // What a worker may have at once. Less leaves workers waiting for the broker, more only moves the queue to them.
    CREDIT = 1024,
    // Received from one socket before the other is looked at.
    BROKER_BATCH = 256,
};

// In front of each payload, so that an answer finds its way without a table: who asked, and who works on it. The client
// leaves room for it, the broker fills it in, the worker sends it back.
struct address {
    uint32_t client;
    uint32_t worker;
};

// libzmq's name of a connection.
struct route {
    uint8_t bytes[ROUTE_BYTES];
    uint8_t size;
    long outstanding;
};

struct peers {
    struct route routes[MAX_PEERS];
    uint32_t count;
    // Who came last mostly comes next.
    uint32_t last;
};

static void *bind_router(void *context, char *endpoint, size_t size)
{
    void *socket = make_socket(context, ZMQ_ROUTER);
    set_option(socket, ZMQ_ROUTER_MANDATORY, 1);
    check(zmq_bind(socket, "tcp://127.0.0.1:*") == 0, "zmq_bind");
    check(zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &size) == 0, "zmq_getsockopt");
    return socket;
}

static uint32_t find(struct peers *peers, zmq_msg_t *route)
{
    size_t size = zmq_msg_size(route);
    const void *bytes = zmq_msg_data(route);
    struct route *last = &peers->routes[peers->last];
    if (peers->count > 0 && last->size == size && memcmp(last->bytes, bytes, size) == 0) return peers->last;
    for (uint32_t i = 0; i < peers->count; i++) {
        if (peers->routes[i].size == size && memcmp(peers->routes[i].bytes, bytes, size) == 0) return peers->last = i;
    }
    if (peers->count == MAX_PEERS || size > ROUTE_BYTES) {
        fprintf(stderr, "PlainZMQ: too many peers\n");
        exit(EXIT_FAILURE);
    }
    struct route *added = &peers->routes[peers->count];
    memcpy(added->bytes, bytes, size);
    added->size = (uint8_t)size;
    return peers->last = peers->count++;
}

static uint32_t least_loaded(const struct peers *workers)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < workers->count; i++)
        if (workers->routes[i].outstanding < workers->routes[best].outstanding) best = i;
    return best;
}

// Gives the message to the peer. One that has gone is passed over: a measurement ends when one does.
static void forward(void *socket, const struct route *to, zmq_msg_t *message)
{
    zmq_msg_t route;
    check(zmq_msg_init_size(&route, to->size) == 0, "zmq_msg_init_size");
    memcpy(zmq_msg_data(&route), to->bytes, to->size);
    if (zmq_msg_send(&route, socket, ZMQ_SNDMORE) >= 0) {
        send_message(socket, message, 0);
    } else {
        check(zmq_errno() == EHOSTUNREACH || zmq_errno() == ETERM, "zmq_msg_send");
        zmq_msg_close(&route);
    }
}

// Takes requests while workers have credit; what waits beyond that waits in the socket.
static int take_requests(void *clients_socket, void *workers_socket, struct peers *clients, struct peers *workers,
                         long *credit)
{
    zmq_msg_t route, message;
    zmq_msg_init(&route);
    zmq_msg_init(&message);
    int count = 0;
    while (count < BROKER_BATCH && *credit > 0 && receive(clients_socket, &route, ZMQ_DONTWAIT)) {
        receive(clients_socket, &message, 0);
        count++;
        if (zmq_msg_size(&message) < sizeof(struct address)) continue;
        uint32_t worker = least_loaded(workers);
        struct address address = {.client = find(clients, &route), .worker = worker};
        memcpy(zmq_msg_data(&message), &address, sizeof address);
        workers->routes[worker].outstanding++;
        *credit -= 1;
        forward(workers_socket, &workers->routes[worker], &message);
    }
    zmq_msg_close(&route);
    zmq_msg_close(&message);
    return count;
}

static int take_answers(void *clients_socket, void *workers_socket, struct peers *clients, struct peers *workers,
                        long *credit)
{
    zmq_msg_t route, message;
    zmq_msg_init(&route);
    zmq_msg_init(&message);
    int count = 0;
    while (count < BROKER_BATCH && receive(workers_socket, &route, ZMQ_DONTWAIT)) {
        receive(workers_socket, &message, 0);
        count++;
        if (zmq_msg_size(&message) < sizeof(struct address)) {
            // A worker that says it is there.
            uint32_t known = workers->count;
            find(workers, &route);
            if (workers->count > known) *credit += CREDIT;
            continue;
        }
        struct address address;
        memcpy(&address, zmq_msg_data(&message), sizeof address);
        if (address.client >= clients->count || address.worker >= workers->count) continue;
        workers->routes[address.worker].outstanding--;
        *credit += 1;
        forward(clients_socket, &clients->routes[address.client], &message);
    }
    zmq_msg_close(&route);
    zmq_msg_close(&message);
    return count;
}

int broker(void *context, char **arguments)
{
    (void)arguments;
    end_on_signal(context);
    static struct peers clients, workers;
    char clients_endpoint[256], workers_endpoint[256];
    void *clients_socket = bind_router(context, clients_endpoint, sizeof clients_endpoint);
    void *workers_socket = bind_router(context, workers_endpoint, sizeof workers_endpoint);
    printf("endpoint=%s workers=%s\n", clients_endpoint, workers_endpoint);
    fflush(stdout);
    long credit = 0;
    for (;;) {
        int count = take_answers(clients_socket, workers_socket, &clients, &workers, &credit);
        if (credit > 0) count += take_requests(clients_socket, workers_socket, &clients, &workers, &credit);
        if (count > 0) continue;
        zmq_pollitem_t items[] = {
            {.socket = workers_socket, .events = ZMQ_POLLIN},
            {.socket = clients_socket, .events = ZMQ_POLLIN},
        };
        if (zmq_poll(items, credit > 0 ? 2 : 1, -1) < 0 && zmq_errno() == ETERM) break;
    }
    zmq_close(clients_socket);
    zmq_close(workers_socket);
    return EXIT_SUCCESS;
}

int proxy(void *context, char **arguments)
{
    (void)arguments;
    end_on_signal(context);
    char clients_endpoint[256], workers_endpoint[256];
    void *clients_socket = bind_router(context, clients_endpoint, sizeof clients_endpoint);
    void *workers_socket = make_socket(context, ZMQ_DEALER);
    size_t size = sizeof workers_endpoint;
    check(zmq_bind(workers_socket, "tcp://127.0.0.1:*") == 0, "zmq_bind");
    check(zmq_getsockopt(workers_socket, ZMQ_LAST_ENDPOINT, workers_endpoint, &size) == 0, "zmq_getsockopt");
    printf("endpoint=%s workers=%s\n", clients_endpoint, workers_endpoint);
    fflush(stdout);
    zmq_proxy(clients_socket, workers_socket, NULL);
    zmq_close(clients_socket);
    zmq_close(workers_socket);
    return EXIT_SUCCESS;
}

// Sends back whatever comes, part by part, in batches.
static void serve(void *socket)
{
    zmq_msg_t parts[BATCH];
    bool has_more[BATCH];
    for (int i = 0; i < BATCH; i++) zmq_msg_init(&parts[i]);
    for (;;) {
        int count = 0;
        while (count < BATCH && receive(socket, &parts[count], count == 0 ? 0 : ZMQ_DONTWAIT)) {
            has_more[count] = zmq_msg_more(&parts[count]) != 0;
            count++;
        }
        if (count == 0) break;
        for (int i = 0; i < count; i++)
            if (!send_message(socket, &parts[i], has_more[i] ? ZMQ_SNDMORE : 0)) break;
    }
    for (int i = 0; i < BATCH; i++) zmq_msg_close(&parts[i]);
}

// broker-worker ENDPOINT: says that it is there, then works.
int broker_worker(void *context, char **arguments)
{
    end_on_signal(context);
    void *socket = connect_to(context, arguments[0]);
    send_copy(socket, "R", 1);
    printf("role=broker-worker ready=1\n");
    fflush(stdout);
    serve(socket);
    zmq_close(socket);
    return EXIT_SUCCESS;
}

// proxy-worker ENDPOINT: a proxy asks no worker whether it is there.
int proxy_worker(void *context, char **arguments)
{
    end_on_signal(context);
    void *socket = connect_to(context, arguments[0]);
    printf("role=proxy-worker ready=1\n");
    fflush(stdout);
    serve(socket);
    zmq_close(socket);
    return EXIT_SUCCESS;
}
