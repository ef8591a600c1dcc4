# For hosts without systemd. The daemon sees other containers' processes only with --pid=host and --uts=host;
# without them its executors are judged by their beats alone.
FROM node:24-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build && npm prune --omit=dev --omit=optional

FROM node:24-bookworm-slim
ENV NODE_ENV=production RECLAIMD_LISTEN=0.0.0.0:9464
WORKDIR /opt/reclaimd
COPY --from=build /build/package.json ./
COPY --from=build /build/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY LICENSE ./
USER node
EXPOSE 9464
# Asks where RECLAIMD_LISTEN says (0.0.0.0 and [::] lead to the container itself); with `off` there is nothing to ask.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["node", "-e", "const listen = process.env.RECLAIMD_LISTEN; if (listen !== 'off') fetch(`http://${listen}/livez`).then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "--max-semi-space-size=4", "--heap-growing-percent=30", "dist/main.js"]
CMD ["run"]
