// An OAuth 2.0 server for tests: oidc-provider behind HTTPS, with the clients and lifetimes its standard input tells.
// Its clock is ahead by what a file says, if one is named.
// Says one line of JSON when it answers: its port, and a refresh token somebody consented to.

import { readFileSync } from "node:fs";
import https from "node:https";
import path from "node:path";
import { pathToFileURL } from "node:url";

const library = pathToFileURL(path.join(process.argv[2], "node_modules/oidc-provider/lib/index.js"));
const { default: Provider } = await import(library);

const said = JSON.parse(readFileSync(0, "utf8"));
if (said.ahead) {
  const machine = Date.now;
  Date.now = () => machine() + 1000 * Number(readFileSync(said.ahead, "utf8"));
}
const server = https.createServer({ key: said.pem, cert: said.pem });
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const { port } = server.address();

const provider = new Provider(`https://127.0.0.1:${port}`, {
  clients: said.clients,
  scopes: ["read", "write", "openid", "offline_access"],
  clientAuthMethods: ["client_secret_basic", "private_key_jwt"],
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: said.introspection, allowedPolicy: () => true },
    revocation: { enabled: said.revocation, allowedPolicy: () => true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: said.jwt,
      defaultResource: () => "https://api.example.org",
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: "read write", audience: "https://api.example.org", accessTokenFormat: "jwt", accessTokenTTL: said.life,
      }),
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  ttl: { ClientCredentials: said.life, AccessToken: said.life, RefreshToken: 86400, Grant: 86400 },
});

async function consented(clientId) {
  const client = await provider.Client.find(clientId);
  const grant = new provider.Grant({ clientId, accountId: "somebody" });
  grant.addOIDCScope("openid offline_access read");
  const grantId = await grant.save();
  const token = new provider.RefreshToken({
    client, accountId: "somebody", grantId, gty: "authorization_code", scope: "openid offline_access read",
    sessionUid: "none", claims: {}, authTime: 0, expiresWithSession: false, iiat: Math.floor(Date.now() / 1000),
  });
  return token.save();
}

server.on("request", provider.callback());
const refresh = said.revocation ? await consented(said.clients[0].client_id) : null;
process.stdout.write(JSON.stringify({ port, refresh }) + "\n");
